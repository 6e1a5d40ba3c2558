"""A program that serves nothing and knows nothing of agentd, as an agent: it writes down the checksum of every file
that comes into its inbox.
pools: {archiving: {command: [python3, plain_worker.py, /srv/inbox], core: {archiver: 9631}, health: none}}"""

import hashlib
import signal
import sys
import threading
from pathlib import Path


def main(inbox: Path) -> None:
    end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: end.set())
    results = Path.home() / "checksums.txt"  # the agent's own directory, where it runs under systemd
    results.touch()
    done = {line.split()[1] for line in results.read_text().splitlines()}
    while not end.wait(0.2):  # TERM: the file in hand is finished
        for file in sorted(inbox.glob("*")):
            if file.name not in done and not end.is_set():
                with results.open("a") as out:
                    out.write(f"{hashlib.sha256(file.read_bytes()).hexdigest()} {file.name}\n")
                done.add(file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
