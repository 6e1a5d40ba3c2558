"""Has a pool grown to so many before work comes, and shows who is there. Beside a running agentd (scripts/run is one):
python3 steer_pool.py research 3"""

import sys

from agentd.sdk.control import UP, ControlClient, ControlError, NoDaemonError
from agentd.v1.common_pb2 import InstanceState


def main(pool: str, count: int) -> int:
    try:
        with ControlClient(owner="steer_pool.py") as agentd:  # who asks, as events and agentctl status show it
            for grant in agentd.scale(UP, count, pool=pool, reason="work to come", for_s=600.0):
                why = f" ({'; '.join(grant.limits)})" if grant.limits else ""
                print(f"{grant.pool}: from {grant.current} to {grant.granted} of {count}{why}")
            for instance in agentd.instances(pool):
                state = InstanceState.Name(instance.state).removeprefix("INSTANCE_STATE_").lower()
                load = f", load {instance.load:.2f}" if instance.HasField("load") else ""
                print(f"{instance.id}: {state}{load}")
    except NoDaemonError as error:
        print(f"later: {error}", file=sys.stderr)  # it may be restarting: yours to try again
        return 3
    except ControlError as error:
        print(f"refused: {error} [{error.reason or error.code}]", file=sys.stderr)
        return 1
    return 0


sys.exit(main(sys.argv[1], int(sys.argv[2])))
