"""Of which agent's unit a process is: what the kernel writes about it on each kind of host, and who is not believed."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.core.model import InstanceId
from agentd.rpc import origin
from agentd.units import instance_cgroup

ID = InstanceId("research-9101")
UNIT = f"/{instance_cgroup(ID)}"
OTHER = f"/{instance_cgroup(InstanceId('research-9102'))}"

# What /proc/PID/cgroup holds of a process in a group, by the kind of host.
V1 = "9:name=systemd:{0}\n8:pids:{0}\n4:memory:{0}\n1:cpu,cpuacct:/\n"
HYBRID = "9:name=systemd:{0}\n8:pids:{0}\n1:cpu,cpuacct:/\n0::{0}\n"
V1_AND_EMPTY_V2 = "9:name=systemd:{0}\n8:pids:{0}\n0::/\n"
V2 = "0::{0}\n"
V2_AND_STRAY_V1 = "1:name=systemd:/\n0::{0}\n"  # mounted by hand, for containers of old
KINDS = {
    "version 1": V1,
    "hybrid": HYBRID,
    "version 1, version 2 unused": V1_AND_EMPTY_V2,
    "version 2": V2,
    "version 2, version 1 unused": V2_AND_STRAY_V1,
}
PREFIXES = {"host": "", "container": "/machine.slice/box.scope/payload", "moved namespace": "/.."}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(PREFIXES.values()), ids=list(PREFIXES))
def prefix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    """A connection of this process to itself."""
    ends = socket.socketpair(socket.AF_UNIX)
    yield ends[0]
    for end in ends:
        end.close()


def write(proc: Path, pid: int, text: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cgroup").write_text(text)


def seen(proc: Path, client: socket.socket, kind: str, group: str, prefix: str = "") -> InstanceId | None:
    """Whom a process in `group` is taken for, on a host of that kind whose systemd lives in the group `prefix`."""
    write(proc, 1, kind.format(f"{prefix}/init.scope"))
    write(proc, 4711, kind.format(group))
    found = origin.find(proc)
    assert found is not None
    return found.instance_of(client, os.getuid(), 4711)


@pytest.mark.parametrize("below", ["", "/worker", "/a/b"])
def test_a_process_of_a_unit_is_known_on_every_kind_of_host(
    kind: str, prefix: str, below: str, tmp_path: Path, client: socket.socket
) -> None:
    assert seen(tmp_path, client, kind, f"{prefix}{UNIT}{below}", prefix) == ID


@pytest.mark.parametrize(
    "group",
    [
        "/",
        "",
        "/init.scope",
        "/system.slice/agentd.service",
        f"/user.slice/user-1000.slice/user@1000.service{UNIT}",
        f"/system.slice/docker-0123.scope{UNIT}",
        "/system.slice/agent@research-9101.service",
        "/agentd.slice/agentd-agents.slice/agent@research-9101.service",
        UNIT.removesuffix(".service"),
        f"{UNIT}x",
        f"{UNIT} (deleted)",
        f"/{UNIT}",
        f"/x{UNIT[1:]}",
        str(Path(UNIT).parent),
        f"{Path(OTHER).parent}/agent@research-9101.service",
    ],
)
def test_a_group_that_is_only_called_like_a_unit_is_of_nobody(
    kind: str, prefix: str, group: str, tmp_path: Path, client: socket.socket
) -> None:
    assert seen(tmp_path, client, kind, f"{prefix}{group}", prefix) is None


def test_what_is_outside_of_systemds_root_is_of_nobody(kind: str, tmp_path: Path, client: socket.socket) -> None:
    assert seen(tmp_path, client, kind, UNIT, "/machine.slice/box.scope") is None


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_group_cannot_write_lines_of_its_own(end: str, kind: str, tmp_path: Path, client: socket.socket) -> None:
    forged = f"{OTHER}/{end}0::{UNIT}{end}9:name=systemd:{UNIT}{end}"
    text = f"7:blkio:{forged}\n{kind.format(forged)}"
    write(tmp_path, 1, kind.format("/init.scope"))
    write(tmp_path, 4711, text)
    found = origin.find(tmp_path)
    assert found is not None
    assert found.instance_of(client, os.getuid(), 4711) == "research-9102"


@pytest.mark.parametrize("text", ["", "\n", "0::", ":", "name=systemd", "0:", "\0\0\0", "0:name=systemd", "\ud800"])
def test_garbage_is_of_nobody(text: str, tmp_path: Path, client: socket.socket) -> None:
    write(tmp_path, 1, V2.format("/init.scope"))
    (tmp_path / "4711").mkdir()
    (tmp_path / "4711" / "cgroup").write_bytes(text.encode(errors="surrogatepass"))
    found = origin.find(tmp_path)
    assert found is not None
    assert found.instance_of(client, os.getuid(), 4711) is None
    assert found.instance_of(client, os.getuid(), 0) is None, "a pid that we cannot see"


@pytest.mark.parametrize(
    "text", ["", "0::/\n", "9:name=systemd:/\n0::/\n", "0::/system.slice/init.scopes\n", "garbage"]
)
def test_without_systemd_there_is_nothing_to_tell_agents_by(text: str, tmp_path: Path) -> None:
    assert origin.find(tmp_path) is None, "process 1 is hidden"
    write(tmp_path, 1, text)
    assert origin.find(tmp_path) is None


def test_a_process_of_another_user_is_another_process(tmp_path: Path, client: socket.socket) -> None:
    write(tmp_path, 1, V2.format("/init.scope"))
    write(tmp_path, 4711, V2.format(UNIT))
    found = origin.find(tmp_path)
    assert found is not None
    assert found.instance_of(client, os.getuid(), 4711) == ID
    assert found.instance_of(client, os.getuid() + 1, 4711) is None


@pytest.mark.parametrize("waited_for", [True, False], ids=["gone", "zombie"])
def test_a_pid_says_nothing_of_a_process_that_has_ended(waited_for: bool, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        end, ended = os.pipe()
        pid = os.fork()
        if not pid:
            caller = socket.socket(socket.AF_UNIX)
            caller.connect(str(tmp_path / "socket"))
            os._exit(0)
        os.close(ended)
        assert os.read(end, 1) == b"", "until the process is gone, with all that it had"
        os.close(end)
        os.waitid(os.P_PID, pid, os.WEXITED | (0 if waited_for else os.WNOWAIT))
        client, _ = listener.accept()
        with client:
            try:
                client.getsockopt(socket.SOL_SOCKET, 77, 4)
            except OSError as error:
                if error.errno == 92:  # ENOPROTOOPT
                    pytest.skip("the kernel does not tell (before Linux 6.5)")
            # Another has its pid and its user by now.
            write(tmp_path / "proc", 1, V2.format("/init.scope"))
            write(tmp_path / "proc", pid, V2.format(UNIT))
            found = origin.find(tmp_path / "proc")
            assert found is not None
            assert found.instance_of(client, os.getuid(), pid) is None
        if not waited_for:
            os.waitpid(pid, 0)


@pytest.mark.parametrize(("number", "answer"), [(92, ID), (3, None), (22, None)], ids=["old kernel", "gone", "invalid"])
def test_a_kernel_that_does_not_tell_whether_it_has_ended(
    number: int, answer: InstanceId | None, tmp_path: Path
) -> None:
    class Client:
        def getsockopt(self, *_: int) -> bytes:
            raise OSError(number, os.strerror(number))

    assert seen(tmp_path, Client(), V2, UNIT) == answer  # type: ignore[arg-type]


def test_short_of_descriptors_nobody_is_taken_for_a_stranger(tmp_path: Path) -> None:
    class Client:
        def getsockopt(self, *_: int) -> bytes:
            raise OSError(24, "Too many open files")

    with pytest.raises(OSError, match="Too many open files"):
        seen(tmp_path, Client(), V2, UNIT)  # type: ignore[arg-type]
