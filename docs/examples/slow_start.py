"""A program that takes its time to start and says itself when it has. Under systemd its start lasts until then.
pools: {ranking: {command: [python3, slow_start.py, /srv/model], core: {ranker: 9641}, health: none, notify: true}}"""

import os
import signal
import socket
import sys
import time
from pathlib import Path


def tell_systemd(text: str) -> None:
    """sd_notify(3): one datagram to $NOTIFY_SOCKET, by the program itself and not by a child of it."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(text.encode(), "\0" + address[1:] if address.startswith("@") else address)


def main(model: Path) -> None:
    while not model.exists():  # load what you need here
        time.sleep(0.1)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    tell_systemd("READY=1")
    signal.sigwait({signal.SIGTERM})  # do your work here


if __name__ == "__main__":
    main(Path(sys.argv[1]))
