"""A command line program as a model: its lines, its failures, and that nothing of it survives the call."""

import asyncio
import json
import os
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest

from contracts.llm import LlmInput
from services.llm_worker.providers.cli import CliProvider
from services.llm_worker.providers.protocol import Call
from tests.support.eventually import eventually
from tests.unit.llm_worker.support import call, error_of, pieces, reason_of, text_of, usage_of, with_config

PROGRAM = """
    import json, os, signal, subprocess, sys
    prompt = sys.stdin.read()
    def say(**line): print(json.dumps(line), flush=True)
    say(type="system", subtype="init")
    if "hang" in prompt:
        child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
        open(sys.argv[1], "w").write(f"{os.getpid()} {child.pid}")
        signal.pause()
    if "die" in prompt: sys.exit("it cannot go on")
    if "garbage" in prompt: print("this is no JSON", flush=True)
    for word in ("Hel", "lo ", prompt, " ", " ".join(sorted(set(os.environ) - {"LC_CTYPE"}))):
        say(type="stream_event", event={"type": "content_block_delta", "delta": {"type": "text_delta", "text": word}})
    say(type="result", subtype="success", is_error="refuse" in prompt, result="told not to", total_cost_usd=5.0,
        usage={"input_tokens": 12, "output_tokens": 3})
"""


@pytest.fixture
def program(tmp_path: Path) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return [sys.executable, str(path), str(tmp_path / "pids"), "--model", "{model}", "--max", "{max_tokens}"]


def provider() -> CliProvider:
    environ = {"PATH": os.environ["PATH"], "SECRET": "s", "WANTED": "w", "HOME": "/nowhere"}
    return CliProvider(lambda _: "the-key", environ)


def asking(program: list[str], text: str) -> Call:
    return with_config(
        call(text=text), provider="cli", model="m", argv=tuple(program), pass_env=("WANTED",), api_key_env="KEY"
    )


async def test_it_streams_counts_and_bills_nothing(program):
    said = await pieces(provider(), asking(program, "world"))
    assert text_of(said) == "Hello world HOME KEY PATH WANTED"
    assert usage_of(said)[:3] == (12, 3, None)
    assert reason_of(said) == "stop"


@pytest.mark.parametrize(
    ("prompt", "code"), [("die", "provider_error"), ("garbage", "provider_malformed"), ("refuse", "provider_error")]
)
async def test_its_failures_have_codes(program, prompt, code):
    error = await error_of(provider(), asking(program, prompt))
    assert error.code == code
    if prompt == "die":
        assert "cannot go on" in error.detail["detail"]


SHOW = """
    import json, os, pathlib, stat, sys
    prompt = sys.stdin.read()
    file = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None
    seen = {"argv": sys.argv[1:], "stdin": prompt}
    if file: seen |= {"file": file.read_text(), "mode": stat.S_IMODE(os.stat(file).st_mode)}
    event = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": json.dumps(seen)}}
    print(json.dumps({"type": "stream_event", "event": event}), flush=True)
    print(json.dumps({"type": "result", "usage": {"input_tokens": 1, "output_tokens": 1}}), flush=True)
"""


def with_system(argv: list[str], system: str) -> Call:
    wanted = with_config(call(text="the question"), provider="cli", argv=tuple(argv))
    messages = [{"role": "system", "content": system}, *wanted.request.input.messages]
    return wanted._replace(request=msgspec.structs.replace(wanted.request, input=LlmInput(messages)))


async def test_the_system_prompt_is_on_no_command_line(tmp_path):
    path = tmp_path / "show.py"
    path.write_text(textwrap.dedent(SHOW))
    # Far more than one argument may hold.
    system = "secret " * 40_000
    seen = json.loads(text_of(await pieces(provider(), with_system([sys.executable, str(path)], system))))
    assert seen == {"argv": [], "stdin": f"{system}\n\nthe question"}
    wanted = with_system([sys.executable, str(path), "{system_file}"], system)
    seen = json.loads(text_of(await pieces(provider(), wanted)))
    assert (seen["file"], seen["stdin"], seen["mode"]) == (system, "the question", 0o600)
    assert not Path(seen["argv"][0]).exists()
    assert "{system_file}" in provider().missing(with_system([sys.executable, "{system}"], system).resolved)


async def test_a_program_is_told_the_shape_of_the_answer(tmp_path):
    path = tmp_path / "show.py"
    path.write_text(textwrap.dedent(SHOW))
    wanted = with_system([sys.executable, str(path)], "be brief")
    params = msgspec.structs.replace(wanted.request.params, response_schema={"type": "integer"})
    shaped = wanted._replace(request=msgspec.structs.replace(wanted.request, params=params))
    stdin = json.loads(text_of(await pieces(provider(), shaped)))["stdin"]
    assert stdin.startswith("be brief\n\nthe question\n\n")
    assert stdin.endswith('{"type":"integer"}')


async def test_a_program_that_is_not_there_is_missing():
    wanted = asking(["htdag-no-such-program"], "x")
    assert provider().missing(wanted.resolved) == "htdag-no-such-program is not installed"
    assert (await error_of(provider(), wanted)).code == "provider_missing"


async def test_when_the_call_ends_the_whole_group_ends(program):
    pids = Path(program[2])
    task = asyncio.create_task(pieces(provider(), asking(program, "hang")))
    both = await eventually(lambda: pids.exists() and pids.read_text().split())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: not any(alive(int(pid)) for pid in both))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
