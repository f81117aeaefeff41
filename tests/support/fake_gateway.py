"""A stand-in for policy-gateway: plain NATS, runs each named tool call once, remembers what it was asked.

It keeps its records when it is stopped and started again, as the real one does.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.listening import listen

Name = tuple[str, str, int, int]
"""Run, task, attempt, call."""
OK: dict[str, Any] = {"stdout": "fine", "exit": 0}


class FakeGateway:
    """`answer(role, tool, args)` gives a value, or an error when it is a dict with `code`."""

    def __init__(self, url: str, answer: Callable[[str, str, Any], Any] = lambda _role, _tool, _args: OK) -> None:
        self._url, self._answer = url, answer
        self._client: Client | None = None
        self.records: dict[Name, bytes] = {}
        self.asked: list[tuple[Name, str, bytes]] = []
        self.effects: list[Name] = []
        self.silent = False

    async def start(self) -> None:
        """Take calls."""
        self._client = await nats.connect(self._url)
        await listen(self._client, "htdag.v1.tool.*.*", self._take, queue="policy-gateway")

    async def stop(self) -> None:
        """Be gone at once, in the middle of whatever is under way."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _take(self, message: Msg) -> None:
        body = json.loads(message.data)
        task = body["task"]
        name = (task["run_id"], task["task_id"], task["attempt"], task["call"])
        self.asked.append((name, message.subject, message.data))
        if name not in self.records:
            self.effects.append(name)
            _, _, _, role, tool = message.subject.split(".")
            said = self._answer(role, tool, body["args"])
            wrong = isinstance(said, dict) and "code" in said
            self.records[name] = json.dumps(
                {"ok": False, "error": said} if wrong else {"ok": True, "value": said}
            ).encode()
        if not self.silent:
            await message.respond(self.records[name])
        await asyncio.sleep(0)
