"""Keys of providers are llm-worker's alone, in the foreground and under supervisord: see `htdag doctor isolation`."""

import signal
from pathlib import Path

import pytest

from services.console.home import Home
from tests.e2e.instance import Instance
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(180)

KEYS = {
    "OPENAI_API_KEY": "sk-canary-openai", "ANTHROPIC_API_KEY": "sk-canary-anthropic", "GEMINI_API_KEY": "canary-gemini",
    "GITHUB_TOKEN": "ghp-canary", "HTDAG_LLM_WORKER__OPENAI_API_KEY": "sk-canary-own",
}  # fmt: skip


@pytest.fixture
def instance(tmp_path):
    made = Instance(tmp_path / "home", **KEYS)
    yield made
    if (made.home / "instance.json").exists():
        made("down")


def holders(home: Path) -> set[str]:
    """The processes of an instance in whose environment a key of a provider stands."""
    record = Home(home).record()
    assert record is not None
    assert record.broker is not None
    processes = {**record.services, "nats": record.broker}
    assert len(processes) == 6
    return {
        name
        for name, service in processes.items()
        if {b"OPENAI_API_KEY", b"ANTHROPIC_API_KEY", b"GEMINI_API_KEY", b"HTDAG_LLM_WORKER__OPENAI_API_KEY"}
        & {entry.partition(b"=")[0] for entry in Path(f"/proc/{service.process.pid}/environ").read_bytes().split(b"\0")}
    }


@pytest.mark.law("I13")
def test_under_supervisord_only_the_worker_has_the_keys(instance):
    instance.up("--scale", "llm-worker=1")
    assert instance("ps").code == 0
    assert holders(instance.home) == {"llm-worker"}
    said = instance("doctor", "isolation", "--json")
    assert said.code == 0, said.out
    checks = {check["name"]: check for check in said.document["checks"]}
    assert set(checks) == {"planner", "policy-gateway", "executor", "llm-worker", "identity", "nats", "scaler"}
    assert checks["scaler"]["status"] == "ok"
    assert "speaks to the broker only; runs nothing but Lua children" in checks["executor"]["message"]
    # What is said to identity is nobody else's to hear, and whoever tries is told so.
    heard = instance("bus", "tail", "htdag.v1.identity.>", "--json")
    assert (heard.code, heard.document["error"]["code"]) == (4, "forbidden_subject")


async def test_in_the_foreground_only_the_worker_has_the_keys(instance):
    process = instance.start("up", "--port", "0")
    try:
        await eventually(lambda: instance("ps").code == 0, timeout_s=60, interval_s=0.5)
        assert holders(instance.home) == {"llm-worker"}
        assert instance("doctor", "isolation").code == 0
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
