"""The roles as data: what can be a policy, and that every right comes out of it."""

import msgspec
import pytest

from contracts.errors import Rejected
from contracts.task import ROLE_ALIASES, ROLES
from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.roles import SHIPPED, parse_roles
from services.policy_gateway.decision.verdict import Allow, Deny

TEXT = SHIPPED.read_text(encoding="utf-8")
SMALL = """
[roles.reader]
tools = ["fs"]
fs = { roots = ["code"] }
"""


def test_the_shipped_roles_are_those_of_the_contracts() -> None:
    shipped = parse_roles(TEXT)
    assert set(shipped.document.roles) == set(ROLES)
    assert dict(shipped.document.aliases) == ROLE_ALIASES
    assert set(shipped.rights) == set(ROLES) | set(ROLE_ALIASES)


def test_every_described_command_is_used() -> None:
    document = parse_roles(TEXT).document
    used = {
        name
        for role in document.roles.values()
        if role.shell is not None
        for names in role.shell.commands.values()
        for name in names
    }
    used |= {module for command in document.commands.values() for module in command.modules}
    assert set(document.commands) - used == set()


def test_the_digest_is_of_the_meaning() -> None:
    digest = parse_roles(TEXT).digest
    assert len(digest) == 64
    assert parse_roles("# another comment\n" + TEXT).digest == digest
    assert parse_roles(TEXT.replace("300_000", "300_001", 1)).digest != digest


def test_the_document_survives_the_wire() -> None:
    shipped = parse_roles(TEXT)
    decoded = msgspec.json.decode(msgspec.json.encode(shipped.document), type=type(shipped.document))
    assert decoded == shipped.document


CRITIC = 'timeout_ms_max = 30_000\nfs = { roots = ["code", "tmp"] }'
CONTAINER = {"image": "alpine:3", "cmd": ["x"], "cpu": 1, "mem": "1g"}


@pytest.mark.parametrize(
    ("before", "after", "call", "was", "becomes"),
    [
        ("300_000", "60_000", ("coder", "fs", {"read": "/code/x"}, {"timeout": 100_000}), "", "timeout_exceeded"),
        ('"docs.rs", ', "", ("researcher", "http", {"url": "https://docs.rs/x"}), "", "forbidden_url"),
        ('"docs.rs"', '"*.rs.org"', ("researcher", "http", {"url": "https://a.rs.org/"}), "forbidden_url", ""),
        ('"docs.rs"', '"*.rs.org"', ("researcher", "http", {"url": "https://docs.rs/"}), "", "forbidden_url"),
        (
            "calls_max = 60",
            "calls_max = 0",
            ("researcher", "http", {"url": "https://docs.rs/x"}),
            "",
            "call_limit_exceeded",
        ),
        ('"cargo", "npm"', '"npm"', ("coder", "shell", {"cmd": ["cargo", "test"]}), "", "forbidden_command"),
        ('"git", "fs"', '"fs"', ("coder", "git", {"cmd": ["status"]}), "", "forbidden_tool"),
        (
            CRITIC,
            CRITIC[:-2] + ", write = true }",
            ("critic", "fs", {"write": "/code/x"}),
            "write_access_denied",
            "bad_args",
        ),
        ('"htdag/busybox:1"', '"alpine:3"', ("tester", "docker", CONTAINER), "forbidden_image", ""),
    ],
)
def test_a_changed_policy_changes_the_verdict(before: str, after: str, call: tuple, was: str, becomes: str) -> None:
    assert before in TEXT
    for text, expected in ((TEXT, was), (TEXT.replace(before, after, 1), becomes)):
        verdict = decide(parse_roles(text), *(*call, None)[:4])
        assert (verdict.code if isinstance(verdict, Deny) else "") == expected


def test_an_image_can_be_pinned_by_digest() -> None:
    pinned = "htdag/busybox:1@sha256:" + "0" * 64
    roles = parse_roles(TEXT.replace("htdag/busybox:1", pinned))
    for name in ("htdag/busybox:1", pinned):
        verdict = decide(roles, "tester", "docker", {"image": name, "cmd": ["x"], "cpu": 1, "mem": "1g"}, None)
        assert isinstance(verdict, Allow)
        assert verdict.plan.image == pinned


SHELL = 'shell = { sandbox = "coder", commands = { seed = ["%s"] } }'


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("roles = 3", "roles"),
        ("x = [", "roles"),
        ("", "roles"),
        ("[roles]", "roles"),
        (SMALL + "sudo = true", "roles.reader"),
        (SMALL + '[commands.x]\nflag = ["-v"]', "commands.x"),
        (SMALL + "[other]\nx = 1", "roles"),
        ('[roles.x]\ntools = ["telepathy"]', "roles.x.tools[0]"),
        ('[roles.x]\ntools = ["fs"]', "roles.x.fs"),
        ('[roles.x]\ntools = ["git"]', "roles.x.git"),
        ('[roles.x]\ntools = ["shell"]', "roles.x.shell"),
        ('[roles.x]\ntools = ["http"]\nnetwork = "hosts"', "roles.x.http"),
        ('[roles.x]\ntools = ["http"]\nhttp = { hosts = ["docs.rs"] }', "roles.x.network"),
        ('[roles.x]\ntools = ["docker"]', "roles.x.docker"),
        ('[roles.X]\ntools = ["lua"]', "roles.X"),
        (SMALL + "timeout_ms_max = 0", "roles.reader.timeout_ms_max"),
        (SMALL + "timeout_ms_max = true", "roles.reader.timeout_ms_max"),
        (SMALL + '[aliases]\nreader = "reader"', "aliases.reader"),
        (SMALL + '[aliases]\nlector = "nobody"', "aliases.lector"),
        (SMALL + 'shell = { sandbox = "none" }', "roles.reader.shell.sandbox"),
        (SMALL + SHELL % "mix", "roles.reader.shell.commands.seed"),
        (SMALL + SHELL % "./git", "roles.reader.shell.commands.seed"),
        (SMALL + SHELL % "git  log", "roles.reader.shell.commands.seed"),
        (SMALL + 'network = "hosts"\nhttp = { hosts = ["GitHub.com"] }', "roles.reader.http.hosts"),
        (SMALL + 'network = "hosts"\nhttp = { hosts = ["*"] }', "roles.reader.http.hosts"),
        (SMALL + 'network = "hosts"\nhttp = { hosts = ["a.b/c"] }', "roles.reader.http.hosts"),
        ("x = " + "[" * 5000, "roles"),
        ("#" * (1 << 21), "roles"),
    ],
)
def test_refuses_what_can_be_no_policy(text: str, field: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse_roles(text)
    assert (refused.value.code, refused.value.detail["field"]) == ("bad_request", field)
