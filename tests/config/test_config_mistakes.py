"""Mistakes: every one is told at once, with its place and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agentd.config import load, parse, written
from agentd.errors import ConfigError


def problems(text: str) -> list[str]:
    """The problems of a file that must have some, as `line:column: text`, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.yaml")
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value) == "\n".join(lines)
    assert all(re.match(r"f\.yaml:[1-9][0-9]*:[1-9][0-9]*: \S", line) for line in lines)
    return [line.removeprefix("f.yaml:") for line in lines]


MISTAKES = [
    # YAML itself
    ("a: [", "1:5: cannot read YAML: while parsing a flow node"),
    ("a:\n\tb: 1", "2:1: cannot read YAML: while scanning"),
    ("a: *b", "1:4: cannot read YAML: found undefined alias"),
    ("ab\n\x07c", "2:1: cannot read YAML: the character U+0007 is not allowed"),
    ('a: "\\UFFFFFFFF"', "1:7: cannot read YAML: "),
    ("a: 1\n---\nb: 2", "2:1: cannot read YAML: expected a single document"),
    ("- a", "1:1: the configuration must be a mapping of sections, not a list"),
    ("text", "1:1: the configuration must be a mapping of sections, not text"),
    ("? [a]\n: b", "1:3: a key must be a word"),
    ("autoscaling: {}\nautoscaling: {}", "2:1: duplicate key autoscaling: it is also on line 1"),
    ("pools:\n  research: {max: 2, max: 3}", "2:22: duplicate key max: it is also on line 2"),
    ("a: &a {<<: *a}\npools: {research: *a}", "1:8: << must not bring in the mapping that it stands in"),
    ("pools: {research: {<<: 3}}", "1:20: << must bring in a mapping"),
    # keys
    ("autoscalling: {}", "1:1: unknown section autoscalling: did you mean autoscaling?"),
    ("multi-agent: {}", "1:1: unknown section multi-agent: did you mean multi_agent?"),
    ("scale_up_treshold: 1", "1:1: unknown section scale_up_treshold: did you mean scale_up_threshold?"),
    ("enabled: true", "1:1: unknown section enabled: it belongs in multi_agent or autoscaling"),
    ("multi_agent: {enable: true}", "1:15: unknown key multi_agent.enable: did you mean enabled?"),
    ("multi_agent: {scale_up_threshold: 1}", "1:15: unknown key multi_agent.scale_up_threshold: it belongs in autos"),
    ("multi_agent:\n  pools: {}", "2:3: unknown key multi_agent.pools: it belongs at the top level"),
    ("autoscaling: {concurrency: 2}", "1:15: unknown key autoscaling.concurrency: it belongs in pools.<name>"),
    ("autoscaling: {check_interval: 2}", "1:15: unknown key autoscaling.check_interval: did you mean check_interval_s"),
    ("host: {xyz: 1}", "1:8: unknown key host.xyz: known here: reserve, starting_max"),
    ('host: {"a\\e[1m": 1}', "1:8: unknown key host.'a\\x1b[1m': known here"),
    ("pools: {research: {prots: [1, 2]}}", "1:20: unknown key pools.research.prots: did you mean ports?"),
    # guards
    (
        "pools: {research: {rate: {up: {period_sec: 60}}}}",
        "1:31: pools.research.rate.up has neither count nor percent: it needs one of them, or both",
    ),
    (
        "pools: {research: {rate: {up: {count: 1}}}}",
        "1:31: pools.research.rate.up has no period_sec: the seconds in which so many may change",
    ),
    (
        "pools: {research: {rate: {down: {percent: 101, period_sec: 60}}}}",
        "1:43: pools.research.rate.down.percent must be a number from 0 to 100, not 101",
    ),
    (
        "pools: {research: {rate: {up: {count: 1.5, period_sec: 9}}}}",
        "1:39: pools.research.rate.up.count must be a whole number from 0 to 65535, not 1.5",
    ),
    (
        "pools: {research: {rate: {sideways: {}}}}",
        "1:27: unknown key pools.research.rate.sideways: known here: up, down",
    ),
    ("pools: {research: {no_bounce: 2}}", "1:31: pools.research.no_bounce must be true or false, not 2"),
    (
        "pools: {research: {diminishing_returns: gard}}",
        "1:41: pools.research.diminishing_returns must be one of advise, guard, off (did you mean guard?), not gard",
    ),
    # one key in two places
    ("autoscaling: {}\nmulti_agent: {autoscaling: {}}", "2:15: multi_agent.autoscaling is given twice: also as autos"),
    ("multi_agent: {autoscaling: {}}\nautoscaling: {}", "2:1: autoscaling is given twice: also as multi_agent.autos"),
    ("autoscaling: {port_ranges: {}}\nport_ranges: {}", "2:1: port_ranges is given twice: also as autoscaling.port_r"),
    (
        "autoscaling: {max_agents_per_type: 2}\nmax_agents_per_type: 3",
        "2:1: max_agents_per_type is given twice: also as autoscaling.max_agents_per_type on line 1",
    ),
    (
        "port_ranges: {research: [9101, 9110]}\npools: {research: {ports: [9101, 9110]}}",
        "2:20: pools.research.ports is given twice: also as port_ranges.research on line 1",
    ),
    # what another program would put in the place of a value
    (
        "pools: {research: {env: {KEY: !secret key}}}",
        "1:31: pools.research.env.KEY has the tag !secret, which agentd does not follow: write the value itself",
    ),
    ("pools: {research: {command: [serve, !env PORT]}}", "1:37: pools.research.command[2] has the tag !env, which"),
    ("multi_agent: !include other.yaml", "1:14: multi_agent has the tag !include, which agentd does not follow"),
    # types and ranges
    ("multi_agent: 3", "1:14: multi_agent must be a mapping, not 3"),
    ("multi_agent: {enabled: 1}", "1:24: multi_agent.enabled must be true or false, not 1"),
    ("multi_agent: {enabled: 'true'}", "1:24: multi_agent.enabled must be true or false, not 'true'"),
    ("check_interval_sec: '60'", "1:21: check_interval_sec must be a number from 0.1 to 86400 (seconds), not '60'"),
    ("check_interval_sec:", "1:20: check_interval_sec has no value: it must be a number from"),
    ("check_interval_sec: 0", "1:21: check_interval_sec must be a number from 0.1 to 86400 (seconds), not 0"),
    ("check_interval_sec: 1:30", "1:21: check_interval_sec must be a number"),
    ("check_interval_sec: 0600", "1:21: check_interval_sec must be a number"),
    ("check_interval_sec: 1__0", "1:21: check_interval_sec must be a number"),
    ("check_interval_sec: 1e999", "1:21: check_interval_sec must be a number"),
    ("heartbeat_timeout_sec: .inf", "1:24: heartbeat_timeout_sec must be a finite number"),
    ("scale_up_threshold: .nan", "1:21: scale_up_threshold must be a finite number from 0 to 1, not .nan"),
    ("scale_up_threshold: 75", "1:21: scale_up_threshold must be a number from 0 to 1, not 75"),
    ("scale_up_threshold: true", "1:21: scale_up_threshold must be a number from 0 to 1, not true"),
    ("scale_up_threshold: [1]", "1:21: scale_up_threshold must be a number from 0 to 1, not a list"),
    ("unhealthy_threshold: 0", "1:22: unhealthy_threshold must be a number from 1 to 1000, not 0"),
    ("scale_up_cooldown_sec: -1", "1:24: scale_up_cooldown_sec must be a number from 0 to 2592000"),
    ("policy: predictive", "1:9: policy must be one of threshold, target, demand, adaptive, not predictive"),
    (
        "pools: {research: {policy: tresh}}",
        "1:28: pools.research.policy must be one of threshold, target, demand, adaptive (did",
    ),
    ("policy: latency", "1:9: policy cannot be latency alone, which needs parameters: write triggers: [{type: latency"),
    ("pools: {research: {min: 1.5}}", "1:25: pools.research.min must be a whole number from 0 to 65535, not 1.5"),
    ("pools: {research: {concurrency: 0}}", "1:33: pools.research.concurrency must be a whole number from 1"),
    ("pools: {research: {cost: -1}}", "1:26: pools.research.cost must be a number from 0"),
    ("pools: {research: {start_timeout_sec: 0}}", "1:39: pools.research.start_timeout_sec must be a number from 0.1"),
    ("driver: Process", "1:9: driver must be one of auto, systemd, process (did you mean process?), not Process"),
    (
        "listen: {agents: '127.0.0.1:0'}",
        "1:18: listen.agents must name its port: agents that outlive agentd come back to the same one",
    ),
    # thresholds and bounds against each other
    (
        "scale_up_threshold: 0.2",
        "1:21: scale_down_threshold 0.25 (the default) must be less than scale_up_threshold 0.2",
    ),
    ("autoscaling: {scale_down_threshold: 0.75}", "1:37: scale_down_threshold 0.75 must be less than"),
    ("pools: {research: {scale_up_threshold: 0.1}}", "1:40: pool research: scale_down_threshold 0.25 must be less"),
    ("min_agents_per_type: 6", "1:22: min_agents_per_type 6 is greater than max_agents_per_type 5 (the default)"),
    ("pools: {research: {min: 3, max: 2}}", "1:25: pool research: min 3 is greater than max 2"),
    ("pools: {research: {min: 6}}", "1:25: pool research: min 6 is greater than max 5 (max_agents_per_type)"),
    (
        "pools: {primary: {min: 2}}",
        "1:24: pool primary: min 2 is greater than max 1 (its core agents: it has no ports)",
    ),
    (
        "pools: {research: {min: 4, ports: [9101, 9102]}}",
        "1:25: pool research: min 4 is greater than the 3 places it has (1 core, 2 on its ports)",
    ),
    (
        "pools: {research: {core: {a: 9601, b: 9602}, max: 1}}",
        "1:26: pool research: max 1 is less than the number of its core agents, 2",
    ),
    ("pools: {}", "1:8: pools must name at least one pool"),
    ("pools: {new: {}}", "1:9: pool new: it can hold no instance"),
    # names and ports
    ("pools: {My-pool: {}}", "1:9: pool name 'My-pool' must be 1 to 19 lower-case letters and digits"),
    ("port_ranges: {a_b: [9601, 9602]}", "1:15: pool name 'a_b' must be"),
    ("pools: {research: {core: {A: 9601}}}", "1:27: core agent name 'A' must be lower-case"),
    ("pools: {research: {core: }}", "1:25: pools.research.core has no value: it must be a mapping of names to ports"),
    ("pools: {research: {core: {a: 80}}}", "1:30: pools.research.core.a must be a whole number from 1024 to 65535"),
    (
        "pools: {research: {core: {a: 9601}}, execution: {core: {a: 9602}}}",
        "1:57: core agent a is in two pools: research and execution",
    ),
    (
        "pools: {research: {core: {executor: 9601}}, execution: {}}",
        "1:27: core agent executor is in two pools: research and execution",
    ),
    ("port_ranges: {research: [80, 90]}", "1:26: port_ranges.research[1] must be a whole number from 1024 to 65535"),
    (
        "port_ranges: {research: [9101]}",
        "1:25: port_ranges.research must be two ports [first, last] from 1024 to 65535",
    ),
    ("port_ranges: {research: 9101}", "1:25: port_ranges.research must be two ports"),
    ("port_ranges: {research: [9102, 9101]}", "1:25: port_ranges.research must not end before it begins"),
    (
        "port_ranges: {research: [9101, 9201]}",
        "1:25: ports 9101-9201 of pool research (line 1) overlap with ports 9201-9250 of pool execution (the default)",
    ),
    (
        "port_ranges:\n  research: [9101, 9150]\n  execution: [9150, 9160]",
        "3:14: ports 9150-9160 of pool execution (line 3) overlap with ports 9101-9150 of pool research (line 2)",
    ),
    (
        "pools: {research: {ports: [9000, 9002]}}",
        "1:27: ports 9000-9002 of pool research (line 1) overlap with port 9002 of core agent researcher (the default)",
    ),
    ("pools: {research: {core: {a: 9601, b: 9601}}}", "1:36: port 9601 of core agent b (line 1) overlap"),
    # the parts of a pool
    ("pools: {research: {command: []}}", "1:29: pools.research.command is empty"),
    ("pools: {research: {command: {}}}", "1:29: pools.research.command must be a list of words or one line"),
    ('pools: {research: {command: "a \'b"}}', "1:29: pools.research.command cannot be split into words"),
    ('pools: {research: {command: ["a\\0"]}}', "1:30: pools.research.command[1] must not contain NUL"),
    ('pools: {research: {env: {A: "\\uD800"}}}', "1:29: pools.research.env.A must not contain NUL"),
    ("pools: {research: {env: {A-B: 1}}}", "1:26: 'A-B' cannot be the name of an environment variable"),
    ("pools: {research: {env: {AGENTD_PORT: 1}}}", "1:26: AGENTD_PORT cannot be set"),
    ("pools: {research: {env: {A: [1]}}}", "1:29: pools.research.env.A must be text, not a list"),
    ("pools: {research: {health: htp}}", "1:28: pools.research.health must be one of heartbeat, http, grpc, none (did"),
    ("pools: {research: {health: {path: /}}}", "1:28: pools.research.health has no check: it must have one of"),
    ("pools: {research: {health: {check: grpc, path: /}}}", "1:48: pools.research.health.path is for check: http only"),
    ("pools: {research: {health: {check: http, path: x}}}", "1:48: pools.research.health.path must be a path that beg"),
    (
        "pools: {research: {triggers: []}}",
        "1:30: pools.research.triggers must be a list of at least one trigger, not an empty list",
    ),
    (
        "pools: {research: {triggers: [{type: x}]}}",
        "1:38: pools.research.triggers[1].type must be one of threshold, ",
    ),
    ("pools: {research: {triggers: [{}]}}", "1:31: pools.research.triggers[1] has no type"),
    (
        "pools: {research: {scale_up_threshold: 0.9, triggers: [{type: threshold}]}}",
        "1:20: pools.research has both scale_up_threshold and triggers",
    ),
    (
        "pools: {research: {triggers: [{type: threshold, scale_up_threshold: 0.1}]}}",
        "1:69: pools.research.triggers[1] has scale_down_threshold 0.25, which must be less than scale_up_",
    ),
    ("pools: {research: {resources: {memory_max: 512MB}}}", "1:44: pools.research.resources.memory_max must be a size"),
    ("pools: {research: {resources: {memory_max: 100}}}", "1:44: pools.research.resources.memory_max must be at least"),
    ("pools: {research: {resources: {cpu_quota: 150}}}", "1:43: pools.research.resources.cpu_quota must be a percent"),
    ("pools: {research: {resources: {io_weight: 0}}}", "1:43: pools.research.resources.io_weight must be a whole"),
    (
        "pools: {research: {resources: {memory_max: 1M, memory_high: 2M}}}",
        "1:61: pools.research.resources.memory_high must be at most memory_max (1048576 bytes), not 2M",
    ),
    ("pools: {research: {restart: {initial_sec: 90}}}", "1:43: pools.research.restart.initial_sec does not fit"),
    ("pools: {research: {restart: {factor: 0.5}}}", "1:38: pools.research.restart.factor must be a number from 1 to"),
    # host and daemon
    ("host: {reserve: {memory: on}}", "1:26: host.reserve.memory must be a size like 512M, 2G or a number of bytes"),
    ("host: {reserve: {cpu_ratio: 1}}", "1:29: host.reserve.cpu_ratio must be a number from 0 to 0.95, not 1"),
    (
        "host: {reserve: {io_pressure_percent: 101}}",
        "1:39: host.reserve.io_pressure_percent must be a number from 0 to",
    ),
    ("host: {starting_max: 0}", "1:22: host.starting_max must be a whole number from 1 to 10000, not 0"),
    ("listen: {control: '127.0.0.1:1'}", "1:19: listen.control must be unix:/path (nobody is authenticated on TCP)"),
    ("listen: {agents: '0.0.0.0:1'}", "1:18: listen.agents must be on a loopback address"),
    ("listen: {http: '192.168.1.1:80'}", "1:16: listen.http must be on a loopback address"),
    ("listen: {http: '127.0.0.1.example.org:80'}", "1:16: listen.http must be on a loopback address"),
    ("listen: {http: '127.0.0.1:70000'}", "1:16: listen.http must be host:port"),
    ("listen: {http: unix:/a}", "1:16: listen.http must be host:port"),
    ("listen: {http: 8766}", "1:16: listen.http must be host:port, for example 127.0.0.1:8766, not 8766"),
    ("listen: {agents: unix:relative}", "1:18: listen.agents must be unix: and the absolute path of a socket"),
    (
        "listen: {agents: unix:/a, control: unix:/a}",
        "1:36: listen.control must not be the same address as listen.agents",
    ),
    ("state_dir: here", "1:12: state_dir must be an absolute path, not here"),
    ("state_dir: ~nobody-of-this-name/x", "1:12: state_dir cannot be found"),
    ("watch: ollama", "1:8: watch must be a list of programs, not ollama"),
    ("watch: [{name: a}]", "1:9: watch[1] must have either process or unit"),
    ("watch: [{process: a, unit: b}]", "1:9: watch[1] must have either process or unit"),
    ("watch: [a, a]", "1:12: watch[2] has the name of an earlier one: a"),
    ("history: {events_max: 1}", "1:23: history.events_max must be a whole number from 100 to 10000000, not 1"),
    ("operators: alice", "1:12: operators must be a list of user names, not alice"),
    ("operators: [0]", "1:13: operators[1] must be the name of a user, not 0"),
]


@pytest.mark.parametrize(("text", "problem"), MISTAKES, ids=[text[:60] for text, _ in MISTAKES])
def test_a_mistake_is_told_once_and_where_it_is(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(problem)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = """
multi_agent:
  enabled: perhaps
  autoscaling:
    check_interval: 5
    scale_up_threshold: 7
pools:
  research: {min: 3, max: 2, ports: [9201, 9202]}
  execution: {health: htp, env: {AGENTD_PORT: 1}}
logging: {}
driver: docker
"""
    found = problems(text)
    assert [line.split(" ")[0] for line in found] == [
        "3:12:",
        "5:5:",
        "6:25:",
        "8:19:",
        "8:37:",
        "9:23:",
        "9:34:",
        "11:9:",
    ]


def test_each_overlap_of_a_range_is_told() -> None:
    found = problems("port_ranges: {wide: [9101, 9250]}")
    assert [re.sub(r".* overlap with ", "", line) for line in found] == [
        "ports 9101-9150 of pool research (the default)",
        "ports 9201-9250 of pool execution (the default)",
    ]


def test_deep_nesting_is_a_problem_and_no_crash() -> None:
    (found,) = problems("[" * 5000)
    assert found.endswith("cannot read YAML: it is nested too deeply")


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    for content, problem in (
        (None, ":1:1: cannot read the file: no such file or directory"),
        ("# é\nab\xff".encode("latin-1").replace(b"\xe9", "é".encode()), ":2:3: cannot read the file: byte 0xff"),
        (b"#" * ((1 << 20) + 1), ":1:1: cannot read the file: it is larger than 1048576 bytes"),
    ):
        path = tmp_path / "agentd.yaml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}{problem}")


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    """Nor one without a name, which has no drop-ins either."""
    for path in (tmp_path, Path(), Path("/"), Path("..")):
        with pytest.raises(ConfigError, match=r":1:1: cannot read the file: is a directory"):
            load(path)
        with pytest.raises(ConfigError, match=r":1:1: cannot read the file: is a directory"):
            written(path, "pools")


def test_both_places_of_what_is_given_twice_are_checked() -> None:
    text = """\
multi_agent:
  autoscaling: {check_interval_sec: -5, enabeld: true, port_ranges: {research: [3, 2]}}
autoscaling: {unhealthy_threshold: 0}
unhealthy_threshold: no
pools: {research: {ports: [9101, 9110]}}
"""
    assert [line.partition(" ")[0] for line in problems(text)] == [
        *("2:37:", "2:41:", "2:81:", "3:1:", "3:36:", "4:1:", "4:22:", "5:20:"),
    ]


def test_tags_in_the_sections_of_other_programs_are_theirs() -> None:
    assert parse("llm: {key: !secret key}", "f.yaml").warnings == ("f.yaml:1:1: ignored, not agentd's: llm",)
    assert parse("pools: {research: {max: !!int 3, env: {A: !!str 5}}}", "f.yaml").warnings == ()
