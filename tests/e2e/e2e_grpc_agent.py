"""An agent that knows nothing of agentd but its port: grpc.health.v1 and nothing else."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2_grpc


def main() -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['AGENTD_PORT']}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
