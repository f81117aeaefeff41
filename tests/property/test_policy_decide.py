"""Laws of the decision: it never raises, repeats itself, and cannot be talked into more by saying more."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import CATALOGUE
from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.plans import DockerPlan, GitPlan, Place, ReadPlan, ShellPlan, WritePlan
from services.policy_gateway.decision.roles import RolesDocument, compile_roles
from services.policy_gateway.decision.verdict import Allow, Deny, Verdict
from tests.unit.policy_gateway.decision.verdicts import ROLES, Call, corpus

CORPUS = [call for name in ("everyday.toml", "attacks.toml") for call, _ in corpus(name)]
ROLE_NAMES = st.sampled_from([*ROLES.rights, "nobody", ""])
TOOLS = st.sampled_from(["git", "fs", "shell", "http", "docker", "lua", "telepathy"])
FACTS = st.builds(
    Facts,
    profile=st.sampled_from(["seed", "python", "none"]),
    bound_role=st.sampled_from([None, "coder", "admin", "nobody"]),
    calls_made=st.integers(0, 100),
    approved=st.booleans(),
)
KEYS = st.sampled_from(
    [
        "cmd",
        "cwd",
        "read",
        "write",
        "content",
        "data",
        "url",
        "method",
        "headers",
        "body",
        "image",
        "mounts",
        "working_dir",
        "cpu",
        "mem",
        "net",
        "src",
        "argv",
        "host",
        "cont",
        "ro",
        "timeout",
        "policy",
        "role",
    ]
)
WORDS = st.sampled_from(
    [
        "git",
        "mix",
        "status",
        "commit",
        "-m",
        "--force",
        "push",
        "HEAD",
        "--",
        "/code",
        "/code/../x",
        "/etc/passwd",
        "..",
        ":",
        "+",
        "-",
        "-c",
        "--eval=x",
        "https://docs.rs/x",
        "GET",
        "2g",
        "deny",
        "hexpm/elixir:1.18",
        "return",
        "coder",
        "admin",
        "python",
        "-m",
    ]
)
TEXTS = st.one_of(WORDS, st.text(max_size=12), st.just("\ud800"), st.just("a\0b"))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, st.text(max_size=5)), inner, max_size=4)
    ),
    max_leaves=12,
)
ARGS = st.one_of(
    JSON,
    st.fixed_dictionaries({"cmd": st.lists(TEXTS, max_size=6)}, optional={"cwd": TEXTS}),
    st.fixed_dictionaries({"read": TEXTS}),
    st.fixed_dictionaries({"write": TEXTS, "content": TEXTS}),
    st.dictionaries(KEYS, JSON, max_size=6),
)
OPTS = st.one_of(st.none(), JSON, st.dictionaries(KEYS, SCALARS, max_size=3))


class Hostile:
    """An object that strikes at whoever looks at it."""

    def _strike(self, *_: Any) -> Any:
        raise AssertionError("somebody looked at a foreign object")

    __eq__ = __ne__ = __lt__ = __len__ = __iter__ = __getitem__ = __str__ = __repr__ = __bool__ = _strike
    __hash__ = object.__hash__


class HostileText(str):
    """A text that strikes."""

    __slots__ = ()

    def __eq__(self, _: object) -> bool:
        raise AssertionError("somebody compared a foreign object")

    __hash__ = str.__hash__


def whole(verdict: Verdict) -> Verdict:
    """A verdict is of the two kinds, with a code of the catalogue and a detail that can be sent."""
    if isinstance(verdict, Deny):
        assert verdict.code in CATALOGUE
        assert verdict.rule
        assert len(msgspec.json.encode(verdict.detail)) < 200_000
    else:
        assert type(verdict) is Allow
        assert verdict.timeout_ms >= 1
    return verdict


@settings(max_examples=400, deadline=None)
@given(ROLE_NAMES, TOOLS, ARGS, OPTS, FACTS)
def test_judges_whatever_json_comes_in_and_twice_the_same(role: str, tool: str, args: Any, opts: Any, facts: Facts):
    verdict = whole(decide(ROLES, role, tool, args, opts, facts))
    assert repr(decide(ROLES, role, tool, args, opts, facts)) == repr(verdict)


@settings(max_examples=150, deadline=None)
@given(JSON, JSON, JSON, JSON)
def test_role_and_tool_may_be_anything(role: Any, tool: Any, args: Any, opts: Any) -> None:
    whole(decide(ROLES, role, tool, args, opts))


FOREIGN = [
    Hostile(),
    HostileText("cmd"),
    b"cmd",
    object,
    (1, 2),
    {1, 2},
    1j,
    lambda: None,
    type("Odd", (dict,), {})(),
]


@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: type(foreign).__name__)
@pytest.mark.parametrize("tool", ["git", "fs", "shell", "http", "docker", "lua"])
def test_never_looks_into_foreign_objects(foreign: Any, tool: str) -> None:
    keys = (
        "cmd",
        "cwd",
        "read",
        "write",
        "content",
        "url",
        "method",
        "headers",
        "body",
        "image",
        "mounts",
        "src",
        "argv",
    )
    for args in (
        foreign,
        {foreign: 1} if not isinstance(foreign, dict | set) else {},
        *({key: foreign} for key in keys),
        {"cmd": ["mix", foreign], "cwd": foreign},
        {"write": "/code/x", "content": foreign},
        {"url": "https://docs.rs/", "method": foreign, "headers": {"a": foreign}, "body": foreign},
        {
            "image": "hexpm/elixir:1.18",
            "cmd": ["x"],
            "mounts": [{"host": foreign, "cont": foreign}],
            "cpu": 1,
            "mem": "1g",
        },
        {"src": "return", "argv": [foreign, {"a": foreign}]},
    ):
        for role in ("admin", "coder", "tester", "researcher"):
            for opts in (None, foreign, {"timeout": foreign}, {"net": foreign}, {"policy": foreign}, {"cpu": foreign}):
                whole(decide(ROLES, role, tool, args, opts))
    whole(decide(ROLES, foreign, foreign, foreign, foreign))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CORPUS), st.text(min_size=1, max_size=12), JSON, st.booleans())
def test_saying_more_never_turns_no_into_yes(call: Call, key: str, value: Any, in_opts: bool) -> None:
    facts = Facts(profile=call.profile)
    before = decide(ROLES, call.role, call.tool, call.args, call.opts, facts)
    args, opts = call.args, call.opts
    known = {"cmd", "cwd", "read", "write", "content", "data", "url", "method", "headers", "body", "image", "mounts"}
    known |= {"working_dir", "cpu", "mem", "net", "src", "argv", "timeout", "policy", "role"}
    if key in known:
        return
    if in_opts:
        opts = {**(opts or {}), key: value}
    else:
        args = {**args, key: value}
    after = decide(ROLES, call.role, call.tool, args, opts, facts)
    assert isinstance(after, Deny), (before, after)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(CORPUS), FACTS)
def test_the_same_through_json_and_through_msgspec(call: Call, facts: Facts) -> None:
    by_msgspec = msgspec.json.decode(msgspec.json.encode([call.args, call.opts]))
    by_json = json.loads(json.dumps([call.args, call.opts]))
    if "NaN" in json.dumps([call.args, call.opts]) or "Infinity" in json.dumps([call.args, call.opts]):
        return
    direct = decide(ROLES, call.role, call.tool, call.args, call.opts, facts)
    assert decide(ROLES, call.role, call.tool, by_msgspec[0], by_msgspec[1], facts) == direct
    assert decide(ROLES, call.role, call.tool, by_json[0], by_json[1], facts) == direct


def _widened(document: RolesDocument, name: str) -> RolesDocument:
    admin = document.roles["admin"]
    return msgspec.structs.replace(document, roles={**document.roles, name: admin})


@pytest.mark.parametrize("name", ["coder", "tester", "critic", "researcher", "architect"])
def test_widening_one_role_changes_no_other(name: str) -> None:
    wider = compile_roles(_widened(ROLES.document, name))
    for call in CORPUS:
        facts = Facts(profile=call.profile)
        before = decide(ROLES, call.role, call.tool, call.args, call.opts, facts)
        after = decide(wider, call.role, call.tool, call.args, call.opts, facts)
        rights = ROLES.rights.get(call.role)
        if rights is None or rights.name != name:
            assert repr(after) == repr(before)
        elif isinstance(before, Allow) and call.tool in {"fs", "git", "lua"}:
            assert isinstance(after, Allow)


def places(verdict: Allow) -> list[Place]:
    """Every path of a plan."""
    plan = verdict.plan
    match plan:
        case ReadPlan() | WritePlan():
            return [plan.path]
        case ShellPlan() | GitPlan():
            return [plan.cwd]
        case DockerPlan():
            return [mount.host for mount in plan.mounts]
        case _:
            return []


PATHS = st.lists(
    st.sampled_from(["code", "tmp", "..", ".", "", "etc", ".git", ".GIT", "a", "a\0", "/", "...", "é"])
).map("/".join)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["coder", "critic", "researcher", "architect", "tester", "admin"]), PATHS, st.booleans())
def test_paths_never_escape(role: str, path: str, rooted: bool) -> None:
    path = "/" + path if rooted else path
    mount = [{"host": path, "cont": "/work"}]
    for tool, args in (
        ("fs", {"read": path}),
        ("fs", {"write": path, "content": "x"}),
        ("git", {"cmd": ["status"], "cwd": path}),
        ("shell", {"cmd": ["mix", "test"], "cwd": path}),
        ("docker", {"image": "hexpm/elixir:1.18", "cmd": ["x"], "cpu": 1, "mem": "1g", "mounts": mount}),
    ):
        verdict = decide(ROLES, role, tool, args, None)
        for place in places(verdict) if isinstance(verdict, Allow) else ():
            assert not {"", ".", ".."} & set(place.parts)
            assert "\0" not in "".join(place.parts)
            assert place.root != "host" or role == "admin"
            # What is shown is what was asked for, but for one slash at the end of a folder.
            assert place.shown in {path, path.removesuffix("/")}
            if role != "admin" and isinstance(verdict.plan, WritePlan):
                assert ".git" not in {part.lower() for part in place.parts}
