"""Real service processes on a private broker: started, killed, waited for, as an operator's supervisor would."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from services.runtime.app import RunFile
from tests.support.nats_server import NatsServer, die_with_parent

LIMITS_LIFTED = '{"usd_per_day":0,"requests_per_minute":0,"concurrent":0}'
"""A test of something else asks more often than once a second. Tests of the limits set their own."""
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0


class ServiceProcess:
    """`htdag serve <name>` in a process of its own. `fault` arms a crash point (see services.runtime.faults)."""

    def __init__(self, name: str, server: NatsServer, home: Path, **environment: str) -> None:
        self.name, self._server, self._home, self._environment = name, server, home, environment
        self._process: subprocess.Popen[bytes] | None = None
        self.log_path = home / f"{name}.log"

    def start(self, *, fault: str = "") -> None:
        """Start it; returns at once."""
        self._home.mkdir(parents=True, exist_ok=True)
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("HTDAG_", "NATS_"))},
            "HTDAG_HOME": str(self._home),
            "NATS_URL": self._server.url,
            "HTDAG_CORE__HTTP_PORT": "0",
            "HTDAG_LLM_WORKER__LIMITS": LIMITS_LIFTED,
            "PYTHONSAFEPATH": "1",
            **self._environment,
        }
        if fault:
            env["HTDAG_FAULT"] = fault
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "htdag"), "serve", self.name],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl call, no lock taken
            )

    @property
    def pid(self) -> int:
        """Process id of the last start."""
        assert self._process is not None
        return self._process.pid

    @property
    def dead(self) -> bool:
        """Whether the process has ended."""
        return self._process is None or self._process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        return None if self._process is None else self._process.poll()

    async def ready(self) -> str:
        """Wait until /readyz says so; the base URL of its HTTP port."""
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_TIMEOUT_S
        while loop.time() < end:
            if self.dead:
                raise RuntimeError(f"{self.name} ended with {self.exit_code}:\n{self.tail()}")
            for path in (self._home / "run").glob(f"{self.name}-*.json"):
                try:
                    found = msgspec.json.decode(path.read_bytes(), type=RunFile)
                except (FileNotFoundError, msgspec.MsgspecError):
                    continue
                if found.pid == self.pid and await _status(found.http, "/readyz") == 200:
                    return f"http://127.0.0.1:{found.http}"
            await asyncio.sleep(0.02)
        raise RuntimeError(f"{self.name} is not ready:\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT_S)

    def terminate(self) -> int:
        """SIGTERM, and wait until it has drained; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_TIMEOUT_S)

    async def ended(self) -> int:
        """Wait until it ends by itself; its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)

    def tail(self) -> str:
        """The end of its log."""
        return self.log_path.read_text(errors="replace")[-4000:] if self.log_path.exists() else ""


async def _status(port: int, path: str) -> int:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0
