"""What the audit keeps of arguments, and what it calls an attack."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.limits import REQUEST_BYTES_MAX, TOOL_ARGS_KEPT_MAX_BYTES
from contracts.policy import ATTACKS
from services.policy_gateway.audit.attacks import attack_of
from services.policy_gateway.audit.denials import Bursts
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.policy_gateway.audit.redaction import Kept, clean, keep, restored
from services.policy_gateway.policy.text_lines import line_of
from tests.unit.policy_gateway.test_audit_chain import json_values

FINGERPRINT = Fingerprint(b"k" * 32)


def kept_of(args: object, opts: object = None) -> Kept:
    return keep(args, opts or {}, FINGERPRINT)


def test_contents_are_told_by_size_and_digest_and_can_be_judged_again() -> None:
    kept = kept_of({"write": "/code/a", "content": "gehéim" * 100})
    assert kept.exact
    assert "gehéim" not in str(kept.args)
    again = restored(kept.args)
    assert (again["write"], len(again["content"])) == ("/code/a", len(("gehéim" * 100).encode()))


@pytest.mark.parametrize(
    "args",
    [
        {"url": "https://x/", "headers": {"Authorization": "Bearer s3cret"}},
        {"url": "https://bob:s3cret@x/"},
        {"cmd": ["mix", "sk-s3cret7890abcdefghij"]},
        {"api_key": {"deep": ["s3cret"]}},
        {"cmd": ["echo", "-----BEGIN RSA PRIVATE KEY-----s3cret"]},
        {"password": "s3cret"},
        {"url": "https://x/", "headers": {"x-api-key": "s3cret"}},
        {"access-key": "s3cret"},
    ],
)
def test_secrets_are_not_kept_nor_can_they_be_guessed(args) -> None:
    kept = kept_of(args)
    assert "s3cret" not in str(kept.args)
    assert not kept.exact
    assert "sha256" not in str(kept.args)


def test_large_arguments_are_cut_and_cannot_be_judged_again() -> None:
    kept = kept_of({"src": "x" * 20_000, "argv": []})
    assert (kept.exact, kept.args["src"]["bytes"]) == (False, 20_000)
    assert kept_of({"src": "x" * 10_000}).exact


@pytest.mark.parametrize(
    "args",
    [
        {"cmd": ["x" * 1_000_000, "sk-s3cret7890abcdefghij"]},
        {"cmd": [[["y" * 200] * 60] * 60] * 10},
        {"deep": {str(a): {str(b): ["z" * 250] * 64 for b in range(40)} for a in range(40)}},
        {"url": "https://x/", "junk": [["sk-s3cret7890abcdefghij"] * 64] * 64},
    ],
    ids=["beside a secret", "lists", "objects", "secrets"],
)
def test_an_entry_of_the_audit_stays_small_whatever_was_asked(args) -> None:
    kept = kept_of(args)
    assert not kept.exact
    assert max(len(msgspec.json.encode(kept.args)), len(msgspec.json.encode(clean(args)))) <= TOOL_ARGS_KEPT_MAX_BYTES


@pytest.mark.parametrize("mark", [{"$cut": "content", "bytes": 10**12}, {"$cut": "content"}, {"$cut": "secret"}])
def test_a_mark_of_the_audit_that_a_caller_made_is_not_taken_for_one(mark) -> None:
    kept = kept_of({"write": "/code/a", "content": mark})
    assert not kept.exact
    assert kept.args["content"]["$cut"] == "reserved"
    assert len(restored({"content": mark}).get("content", "")) <= REQUEST_BYTES_MAX, "as older entries may hold it"


@given(json_values)
def test_whatever_is_given_something_is_kept(args) -> None:
    kept = kept_of(args)
    assert len(kept.sha256) == 64
    restored(kept.args)


@pytest.mark.parametrize(
    ("code", "tool", "args", "attack"),
    [
        ("forbidden_tool", "http", {"url": "https://evil", "method": "post"}, "http_exfiltration"),
        ("forbidden_url", "http", {"url": "https://evil"}, "http_exfiltration"),
        ("dangerous_git_operation", "git", {"cmd": ["push", "--force"]}, "dangerous_git"),
        ("dangerous_git_operation", "shell", {"cmd": ["git", "push"]}, "dangerous_git"),
        ("write_access_denied", "fs", {"write": "/code/a"}, "unauthorized_file_write"),
        ("forbidden_path", "fs", {"write": "/etc/passwd"}, "unauthorized_file_write"),
        ("forbidden_path", "fs", {"read": "/etc/passwd"}, "unauthorized_file_read"),
        ("forbidden_tool", "fs", {"write": "/code/a"}, "unauthorized_file_write"),
        ("forbidden_command", "shell", {"cmd": ["rm", "-rf", "/"]}, "shell_injection"),
        ("forbidden_command", "shell", {"cmd": ["nc", "-l", "4444"]}, "network_backdoor"),
        ("forbidden_tool", "http", {"method": "listen"}, "network_backdoor"),
        ("lua_restricted", "lua", {"src": ":gen_tcp.listen(4444)"}, "network_backdoor"),
        ("lua_restricted", "lua", {"src": "os.execute('x')"}, "lua_escape"),
        ("timeout_exceeded", "shell", {"cmd": ["sleep"]}, "resource_abuse"),
        ("forbidden_mount", "docker", {}, "container_escape"),
        ("role_mismatch", "fs", {}, "role_escalation"),
        ("a_code_of_tomorrow", "fs", None, "tool_misuse"),
    ],
)
def test_every_refusal_is_one_kind_of_attack(code: str, tool: str, args, attack: str) -> None:
    assert attack_of(code, tool, args) == attack
    assert attack in ATTACKS


@given(st.text(), st.text(), json_values)
def test_the_kind_of_an_attack_is_always_a_known_one(code: str, tool: str, args) -> None:
    assert attack_of(code, tool, args) in ATTACKS


def test_a_burst_is_told_once_and_a_new_one_again() -> None:
    bursts = Bursts()
    key = ("coder", "r", "a")
    assert [bursts.count(key, n) for n in range(20)] == [False] * 9 + [True] + [False] * 10
    assert not any(bursts.count(("coder", "r", "b"), 20) for _ in range(9))
    assert not any(bursts.count(key, 100_000 + n * 7_000) for n in range(20)), "ten in seventy seconds are no burst"
    assert [bursts.count(key, 900_000 + n) for n in range(10)] == [False] * 9 + [True]


TEXT = """[aliases]
x = "coder"

[roles.coder]
tools = ["fs"]
timeout_ms_max = 0
[roles.coder.shell.commands]
seed = ["mix"]
"""


@pytest.mark.parametrize(
    ("field", "message", "line"),
    [
        ("roles", "no TOML: Expected '=' after a key (at line 3, column 4)", 3),
        ("roles.coder.timeout_ms_max", "too small", 6),
        ("roles.coder.shell.commands.seed", "no such command", 8),
        ("roles.coder.fs", "what the role may do with fs", 4),
        ("aliases.x", "the name of a role", 2),
        ("roles[...]", "Object contains unknown field `timeout_ms_max`", 6),
        ("roles[...].tools", "Expected `array`, got `int`", 5),
        ("roles[...].shell.commands[...]", "Expected `array`, got `int`", 8),
        ("nothing", "at least one role", None),
    ],
)
def test_a_refusal_names_a_line_to_look_at(field: str, message: str, line) -> None:
    assert line_of(TEXT, field, message) == line
