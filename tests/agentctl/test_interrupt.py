"""Control-C, of agentctl as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from agentd.v1 import control_pb2 as pb

pytestmark = pytest.mark.host

# Whoever runs the tests in the background of a shell script has SIGINT ignored, and a child inherits that.
HEARD = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
RUN = "from agentd.agentctl import main; main()\n"
ROLLING = pb.RestartResponse(instances=["research-9101"], restart=pb.RollingRestart(stand_in="research-9103"))

# A library whose import makes an error of its own of whatever happens in it.
BREAKS_OFF = """
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[-1]:
            try:
                for _ in range(2):
                    os.kill(os.getpid(), signal.SIGINT)
            except BaseException as error:
                raise ImportError('half imported') from error
sys.meta_path.insert(0, Finder())
"""


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HEARD + program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("signals", [1, 2, 5])
@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("restart", "research"), "the restart of research goes on; agentctl restart research --cancel ends it"),
        (("drain", "research-9101"), "the drain of research-9101 goes on"),
    ],
)
def test_it_ends_the_waiting_alone_however_often_it_comes(
    daemon: Any, words: tuple[str, ...], text: str, signals: int
) -> None:
    daemon.fake.restarted = ROLLING
    daemon.fake.streams = [[daemon.event(6, type="endless")]]
    with start(RUN, "--address", daemon.address, *words, "--wait") as process:
        try:
            daemon.fake.watched.get(timeout=30)
            for _ in range(signals):
                process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, errors) == (130, f"agentctl: {text}\n")


@pytest.mark.parametrize("module", ["click", "agentd.agentctl.app", "grpc", "agentd.sdk.control"])
def test_it_ends_an_import_quietly_whatever_that_makes_of_it(daemon: Any, module: str) -> None:
    with start(BREAKS_OFF + RUN, "--address", daemon.address, "endpoints", module) as process:
        assert process.communicate(timeout=30) == ("", "")
    assert process.returncode == 130
