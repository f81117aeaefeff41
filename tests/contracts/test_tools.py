"""What agents are told of their tools: for every role, in schemas that everyday calls satisfy."""

from typing import Any

import jsonschema_rs
import pytest

from contracts.subjects import tool_call
from contracts.task import ROLE_ALIASES, ROLES
from contracts.tools import ROLE_TIMEOUT_MS_MAX, ROLE_TOOLS, TOOLS, describe, role_of, tools_of
from services.policy_gateway.decision.roles import SHIPPED, parse_roles

EVERYDAY: list[tuple[str, dict[str, Any]]] = [
    ("git", {"cmd": ["commit", "-m", "a message"]}),
    ("shell", {"cmd": ["mix", "test"], "cwd": "/code/app", "opts": {"timeout": 60_000}}),
    ("fs", {"read": "/code/a.ex"}),
    ("fs", {"write": "/code/a.ex", "content": "x"}),
    ("http", {"url": "https://docs.rs/serde", "method": "GET", "headers": {"accept": "text/html"}}),
    ("lua", {"src": "function main(n) return n end", "argv": [1]}),
    (
        "docker",
        {
            "image": "hexpm/elixir:1.18",
            "cmd": ["mix", "test"],
            "working_dir": "/work",
            "mounts": [{"host": "/code", "cont": "/work", "ro": True}],
            "opts": {"cpu": 2, "mem": "2g", "timeout": 600_000},
        },
    ),
]


def shape(role: str, name: str) -> dict[str, Any]:
    (described,) = describe(role, [name])
    assert described["type"] == "function"
    assert described["function"]["name"] == name
    assert described["function"]["description"]
    found: dict[str, Any] = described["function"]["parameters"]
    return found


def test_every_role_and_every_alias_has_a_row():
    assert set(ROLE_TOOLS) == set(ROLES)
    assert all(tools_of(alias) == ROLE_TOOLS[role_of(alias)] for alias in ROLE_ALIASES)
    assert tools_of("wizard") == ()
    assert {name for tools in ROLE_TOOLS.values() for name in tools} == set(TOOLS)


@pytest.mark.parametrize(("name", "args"), EVERYDAY)
def test_an_everyday_call_satisfies_its_schema(name: str, args: dict[str, Any]):
    jsonschema_rs.validator_for(shape("admin", name)).validate(args)


@pytest.mark.parametrize("role", ROLES)
def test_only_roles_that_write_are_told_of_writing(role: str):
    told = shape(role, "fs")["properties"]
    assert ("write" in told) == (role in {"coder", "admin"})
    assert shape(role, "lua")["properties"].keys() == shape("admin", "lua")["properties"].keys()


@pytest.mark.parametrize("role", [*ROLES, *ROLE_ALIASES])
def test_a_role_is_told_the_longest_timeout_that_the_shipped_policy_gives_it(role: str):
    allowed = parse_roles(SHIPPED.read_text(encoding="utf-8")).rights[role_of(role)].timeout_ms_max
    for tool in tools_of(role):
        told = shape(role, tool)["properties"]["opts"]["properties"]["timeout"]
        assert told["maximum"] == (allowed or ROLE_TIMEOUT_MS_MAX["admin"])
        assert str(told["maximum"]) in told["description"]


def test_a_call_goes_to_the_subject_of_role_and_tool():
    assert tool_call("coder", "fs") == "htdag.v1.tool.coder.fs"
