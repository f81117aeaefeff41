"""An identity in a process of its own, with a clock that the test moves, and whoever talks to it."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import msgspec
import pyotp
import pytest

from contracts.approval import RequestApproval, action_digest
from contracts.reply import RemoteRejected
from contracts.streams import COMMANDS
from contracts.subjects import command, rpc
from services.identity.config import MEMORY_KIB_MIN
from services.runtime.bus import Bus
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.service_process import ServiceProcess

START_S = 1_790_000_000
PASSWORD = "correct horse battery staple"
ACTION = {"tool": "shell", "cmd": ["deploy.sh"]}


class Told(NamedTuple):
    """An answer of the local listener."""

    status: int
    body: dict[str, Any]


class Hall:
    """One broker, one or more identities, one clock."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self.server, self.home = server, folder / "home"
        self.clock = folder / "clock"
        self.set_clock(START_S)
        self.processes: list[ServiceProcess] = []
        self.bus: Bus
        self.secret = ""
        self._sessions = 0

    def set_clock(self, at_s: float) -> None:
        self.now_s = at_s
        self.clock.write_text(str(at_s))

    def later(self, by_s: float) -> None:
        self.set_clock(self.now_s + by_s)

    async def start(self, *, home: Path | None = None, fault: str = "") -> ServiceProcess:
        process = ServiceProcess(
            "identity", self.server, home or self.home, HTDAG_IDENTITY__TEST_CLOCK=str(self.clock),
            HTDAG_IDENTITY__OWNER="Aka", HTDAG_IDENTITY__KEY_FILE=str(self.home / "keys" / "identity"),
            HTDAG_IDENTITY__PASSWORD_MEMORY_KIB=str(MEMORY_KIB_MIN),
        )  # fmt: skip
        process.start(fault=fault)
        self.processes.append(process)
        await process.ready()
        return process

    # -- the listener ------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        files = sorted(self.home.glob("run/*.local"), key=lambda path: path.stat().st_mtime)
        return str(json.loads(files[-1].read_text())["url"])

    async def post(self, path: str, body: Any = None, bearer: str = "", **headers: str) -> Told:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer:
            given["Authorization"] = f"Bearer {bearer}"
        # Plain HTTP: to read the certificates of this machine would take longer than the answer.
        async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
            answer = await client.post(self.url + path, json=body, headers=given)
        return Told(answer.status_code, answer.json())

    def token(self, user: str = "aka") -> str:
        return (self.home / "keys" / "set-up-links" / user).read_text().strip().rpartition("#")[2]

    async def set_password(self, user: str = "aka") -> str:
        told = await self.post("/auth/password/", {"user": user, "token": self.token(user), "password": PASSWORD})
        assert told.status == 200, told
        return str(told.body["session"])

    async def enrol(self, user: str = "aka") -> str:
        """Password, secret, first code; afterwards that code is old."""
        bearer = await self.set_password(user)
        secret = str((await self.post("/auth/mfa/setup/", None, bearer)).body["secret"])
        told = await self.post("/auth/mfa/verify/", {"code": self.code(secret=secret)}, bearer)
        assert told == Told(200, {"mfa_enabled": True})
        self.later(90)
        self.secret = secret
        return bearer

    def code(self, steps: int = 0, secret: str = "") -> str:
        """The code of the present step, or of one so many steps away."""
        return pyotp.TOTP(secret or self.secret).at(int(self.now_s) + 30 * steps)

    def wrong(self) -> str:
        """A code that is none of this minute's."""
        near = {self.code(steps) for steps in (-2, -1, 0, 1)}
        return next(text for text in ("000000", "111111", "222222", "333333", "444444") if text not in near)

    # -- the bus -----------------------------------------------------------------------------------------------------

    async def ask(self, verb: str, **body: Any) -> Any:
        return await self.bus.call(rpc("identity", *verb.split(".")), body, timeout_s=15)

    async def refused(self, verb: str, **body: Any) -> dict[str, Any]:
        with pytest.raises(RemoteRejected) as error:
            await self.ask(verb, **body)
        return error.value.error

    async def login(self, name: str, code: str, **gates: Any) -> dict[str, Any]:
        """Both turns; what came of the second."""
        return await self.converse("login.converse", name, code, **gates)

    async def converse(self, verb: str, name: str, code: str, **gates: Any) -> dict[str, Any]:
        self._sessions += 1
        session = f"s{self._sessions}"
        first = await self.ask(verb, session=session, text=name, **gates)
        assert (first["state"], first["say"]) == ("await_code", "Enter your code.")
        said: dict[str, Any] = await self.ask(verb, session=session, text=code)
        return said

    async def request(self, approval_id: str, action: Any = ACTION, **more: Any) -> str:
        """What an executor asks; the digest."""
        digest = action_digest(action)
        request = RequestApproval(
            **{"run_id": "r1", "task_id": "deploy", "title": "deploy", "digest": digest, "action": action, **more}
        )
        subject = command("identity", "approval", approval_id, "request")
        self._sessions += 1
        await self.bus.store(
            subject, msgspec.json.encode(request), stream=COMMANDS, msg_id=f"{approval_id}-{self._sessions}"
        )
        await eventually(lambda: self.status(approval_id))
        return digest

    async def status(self, approval_id: str) -> str:
        try:
            return str((await self.ask("approval.show", approval_id=approval_id))["status"])
        except RemoteRejected:
            return ""

    async def answers(self, run_id: str = "r1") -> list[dict[str, Any]]:
        """What lies in the mailbox of the run."""
        pattern = f"htdag.v1.in.*.executor.run.{run_id}.approval"
        return [json.loads(record.data) async for record in self.bus.history(COMMANDS, pattern)]
