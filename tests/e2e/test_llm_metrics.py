"""What `curl <worker>/metrics` shows of LLM calls: there before the first call, and right after a streamed one."""

import asyncio
import json
import urllib.request
from pathlib import Path

import nats

from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

ASKED = 'htdag_llm_requests_total{model="mock",outcome="ok",provider="mock"}'
STREAMED = 'htdag_llm_tokens_streamed_total{model="mock"}'
BREAKER = 'htdag_llm_breaker_state{model="mock"}'
LIMITER = "htdag_llm_limiter_queue_depth"


async def samples(url: str) -> dict[str, float]:
    """Every sample of the page by its name and labels."""

    def page() -> str:
        with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    lines = [line for line in (await asyncio.to_thread(page)).splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_calls_tokens_breakers_and_the_limiter_are_shown_from_the_start(nats_server: NatsServer, tmp_path: Path):
    worker = ServiceProcess("llm-worker", nats_server, tmp_path / "home")
    worker.start()
    client = await nats.connect(nats_server.url)
    try:
        url = await worker.ready()
        wanted = (ASKED, STREAMED, BREAKER, LIMITER)
        shown = await samples(url)
        assert {name: shown.get(name) for name in wanted} == dict.fromkeys(wanted, 0.0)
        # No model is counted under a name that is only an alias of it.
        assert not [name for name in shown if 'model="gemini-2.5-pro"' in name]
        body = {"input": {"messages": [{"role": "user", "content": "Name a colour."}]}, "params": {"stream": True}}
        answer = json.loads((await client.request("llm.req.mock", json.dumps(body).encode(), timeout=20)).data)
        assert answer["output"]

        async def counted() -> bool:
            shown = await samples(url)
            return shown[ASKED] == 1 and shown[STREAMED] >= 1 and (shown[BREAKER], shown[LIMITER]) == (0, 0)

        await eventually(counted)
    finally:
        await client.close()
        worker.kill()
