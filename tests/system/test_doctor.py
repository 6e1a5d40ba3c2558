"""agentctl doctor on a booted host with the package: what it finds, that its advice helps, that it touches nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from testhost import Host, wait_until

from agentd import units

ALWAYS = ("init", "version", "units", "d-bus", "polkit", "journal", "accounts", "memory", "cpu", "pids", "ports")
Found = dict[str, tuple[str, str, str]]


@pytest.fixture(autouse=True)
def stopped(shared_host: Host) -> Iterator[None]:
    """Each test begins and ends with an agentd that does not run."""
    yield
    shared_host.exec("systemctl", "stop", "agentd.target", "agentd.service")


def doctor(host: Host, *arguments: str, user: str = "") -> tuple[int, Found]:
    """Its exit code, and of each check the level, the text and what to do."""
    done = host.exec("agentctl", "doctor", "--output", "json", *arguments, user=user, check=False)
    assert done.stderr == ""
    value = json.loads(done.stdout)
    assert value["ok"] is (done.returncode == 0)
    return done.returncode, {one["name"]: (one["level"], one["text"], one["fix"]) for one in value["checks"]}


def level(host: Host, name: str) -> str:
    return doctor(host)[1][name][0]


def state(host: Host) -> str:
    return host.show("agentd.service", "ActiveState")["ActiveState"]


def test_a_fresh_installation_is_well_and_is_not_started_by_looking_at_it(shared_host: Host) -> None:
    shared_host.exec("systemctl", "start", "agentd.socket", "agentd-agents.socket")
    code, found = doctor(shared_host)
    assert code == 0, [f"{name}: {what[0]} {what[1]}" for name, what in found.items() if what[0] != "ok"]
    assert state(shared_host) == "inactive"
    shared_host.exec("systemctl", "stop", "agentd.socket", "agentd-agents.socket")
    assert found["service"] == ("warn", "agentd.service is inactive", "sudo systemctl start agentd")
    for name in ALWAYS:
        assert found[name][0] == "ok", (name, found[name])
    assert "with agentd's rule" in found["polkit"][1]
    assert found["configuration"][1] == "/etc/agentd/agentd.yaml"


def test_a_running_agentd_is_asked_and_nothing_is_wrong(shared_host: Host) -> None:
    shared_host.exec("systemctl", "start", "agentd")
    wait_until(lambda: "answers" in doctor(shared_host)[1]["control"][1], "agentd answers")
    code, found = doctor(shared_host)
    assert code == 0, found
    assert found["state"] == ("ok", "/var/lib/agentd belongs to agentd alone", "")
    assert found["ports"][0] == "ok", "its own agents are nobody else"
    assert found["drop-ins"][0] == "ok"
    page = shared_host.out("agentctl", "doctor")
    assert "\x1b" not in page


def follow(host: Host, fix: str) -> None:
    """Do as advised, as root."""
    host.exec(*fix.removeprefix("sudo ").split())


@pytest.mark.parametrize("options", [(), ("--runtime",)], ids=["etc", "run"])
def test_a_masked_template_is_found_and_the_advice_helps(shared_host: Host, options: tuple[str, ...]) -> None:
    shared_host.exec("systemctl", "mask", *options, units.TEMPLATE)
    code, found = doctor(shared_host)
    assert (code, found["units"][:2]) == (1, ("fail", "masked: agent@.service"))
    assert found["units"][2] == " ".join(("sudo systemctl unmask", *options, units.TEMPLATE))
    follow(shared_host, found["units"][2])
    assert level(shared_host, "units") == "ok"


def test_a_closed_socket_of_the_setter_of_limits_is_found_and_the_advice_helps(shared_host: Host) -> None:
    shared_host.exec("systemctl", "start", "agentd")
    wait_until(lambda: level(shared_host, "setter") == "ok", "its socket listens")
    shared_host.exec("systemctl", "stop", units.LIMITS_SOCKET)
    code, found = doctor(shared_host)
    assert (code, found["setter"][0]) == (0, "warn"), "no agent has limits"
    follow(shared_host, found["setter"][2])
    assert level(shared_host, "setter") == "ok"


def test_a_place_of_instances_files_where_links_lead_somewhere_is_found_and_the_advice_helps(
    shared_host: Host,
) -> None:
    shared_host.exec("systemctl", "start", "agentd")
    wait_until(lambda: level(shared_host, "instances") == "ok", "the mount is there")
    shared_host.exec("mount", "-o", "remount,symfollow", units.INSTANCES_DIR)
    _, found = doctor(shared_host)
    assert found["instances"][:2] == (
        "warn",
        "/run/agentd/instances is mounted without nosymfollow: systemd, as root, would follow a link in it",
    )
    follow(shared_host, found["instances"][2])
    assert level(shared_host, "instances") == "ok"
    shared_host.exec("umount", "--lazy", units.INSTANCES_DIR)
    _, found = doctor(shared_host)
    assert found["instances"][0] == "warn"
    follow(shared_host, found["instances"][2])
    wait_until(lambda: level(shared_host, "instances") == "ok", "it is mounted again")


def test_a_missing_rule_is_found(shared_host: Host) -> None:
    rule = "/usr/share/polkit-1/rules.d/60-agentd.rules"
    shared_host.exec("mv", rule, f"{rule}.away")
    code, found = doctor(shared_host)
    shared_host.exec("mv", f"{rule}.away", rule)
    assert (code, found["polkit"][0]) == (1, "fail")
    assert level(shared_host, "polkit") == "ok"


def test_a_foreign_process_on_a_core_agents_port_is_named(shared_host: Host) -> None:
    squatter = ("python3", "-m", "http.server", "9002")
    shared_host.exec("systemd-run", "--quiet", "--unit=squatter", *squatter)
    wait_until(lambda: level(shared_host, "ports") != "ok", "the port is taken")
    code, found = doctor(shared_host)
    shared_host.exec("systemctl", "stop", "squatter")
    assert (code, found["ports"][0]) == (1, "fail")
    assert found["ports"][1].startswith("taken: 9002 by python3 (pid ")


def test_who_may_not_ask_agentd_is_told_and_the_advice_helps(shared_host: Host) -> None:
    shared_host.exec("useradd", "--create-home", "alice")
    shared_host.exec("systemctl", "start", "agentd")
    code, found = doctor(shared_host, user="alice")
    failing = [f"{name}: {what[1]}" for name, what in found.items() if what[0] == "fail"]
    assert (failing, code) == ([], 0)
    assert found["control"][:2] == ("warn", "alice may not use /run/agentd/control.sock")
    shared_host.exec(*found["control"][2].partition(",")[0].removeprefix("sudo ").split())
    _, found = doctor(shared_host, user="alice")
    assert found["control"][0] == "ok"


def test_a_file_with_errors_is_told(shared_host: Host) -> None:
    shared_host.write("/tmp/bad.yaml", "multi_agent: {enabled: perhaps}\n")
    code, found = doctor(shared_host, "--config", "/tmp/bad.yaml")
    assert (code, found["configuration"][0]) == (1, "fail")
    assert found["configuration"][2] == "agentctl config check /tmp/bad.yaml"
