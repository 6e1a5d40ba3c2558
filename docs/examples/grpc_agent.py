"""A gRPC service as an agent. Of agentd it knows its port; agentd asks it grpc.health.v1, as any load balancer would.
pools: {embedding: {command: [python3, grpc_agent.py], ports: [9611, 9620], health: grpc}}"""

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2_grpc


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(int(os.environ.get("AGENTD_CONCURRENCY", "4"))))
    status = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(status, server)  # add your own service beside it
    server.add_insecure_port(f"127.0.0.1:{os.environ['AGENTD_PORT']}")
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    server.start()
    end.wait()
    status.enter_graceful_shutdown()  # says NOT_SERVING from now on
    server.stop(grace=60.0).wait()  # calls under way are finished; see drain_timeout_sec


if __name__ == "__main__":
    main()
