"""Whether a service process is ready: the address it wrote down, and what it answers at /readyz."""

import asyncio
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

_ANSWER_S: Final = 2.0
_BODY_BYTES_MAX: Final = 1 << 20


class Readiness(NamedTuple):
    """`ready`, and if not, why. `http` is None until the process has written its address down."""

    ready: bool
    reason: str = ""
    http: str | None = None


class _RunFile(msgspec.Struct):
    pid: int
    http: int
    service: str
    started_at: str
    instance: str = ""


class _Check(msgspec.Struct):
    name: str
    ok: bool
    reason: str | None = None


def http_of(run_dir: Path, service: str, pid: int) -> str | None:
    """The HTTP address that this process wrote into `<home>/run/<instance>.json`; None as long as it has not."""
    entry = _entry_of(run_dir, service, pid)
    return f"http://127.0.0.1:{entry.http}" if entry else None


def instance_of(run_dir: Path, service: str, pid: int) -> str | None:
    """The name this process goes by at the broker; None as long as it has not written it down."""
    entry = _entry_of(run_dir, service, pid)
    return entry.instance if entry else None


def _entry_of(run_dir: Path, service: str, pid: int) -> _RunFile | None:
    found: list[_RunFile] = []
    for path in run_dir.glob(f"{service}-*.json"):
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=_RunFile)
        except (OSError, msgspec.MsgspecError):
            continue  # it is being replaced or removed right now
        if entry.pid == pid and entry.service == service:
            found.append(entry)
    # A killed service leaves its file behind, and its pid may come again: the newest one counts.
    return max(found, key=lambda entry: entry.started_at, default=None)


async def probe(run_dir: Path, service: str, pid: int) -> Readiness:
    """Ask the process `pid` of `service` whether it is ready."""
    http = http_of(run_dir, service, pid)
    if http is None:
        return Readiness(False, "it has not opened its health port yet")
    try:
        status, body = await get(f"{http}/readyz")
    except (OSError, TimeoutError, ValueError) as error:
        return Readiness(False, f"its health port does not answer ({type(error).__name__})", http)
    return Readiness(status == 200, "" if status == 200 else reasons(body), http)


def reasons(body: bytes) -> str:
    """The failing checks in an answer of /readyz, in one line."""
    try:
        checks = msgspec.json.decode(body, type=list[_Check])
    except msgspec.MsgspecError:
        return body.decode("utf-8", "replace").strip()[:200] or "not ready"
    return "; ".join(f"{check.name}: {check.reason or 'not ready'}" for check in checks if not check.ok) or "not ready"


async def get(url: str) -> tuple[int, bytes]:
    """Status and body of a plain HTTP GET on loopback. Raises OSError, TimeoutError or ValueError."""
    host_port, _, path = url.removeprefix("http://").partition("/")
    host, _, port = host_port.rpartition(":")
    async with asyncio.timeout(_ANSWER_S):
        reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: {host_port}\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            answer = await reader.read(_BODY_BYTES_MAX)
            while chunk := await reader.read(_BODY_BYTES_MAX):
                answer += chunk
                if len(answer) > _BODY_BYTES_MAX:
                    raise ValueError("the answer is too long")
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return _status(head), body


def _status(head: bytes) -> int:
    """The status in an answer's first line. Raises ValueError, also when whoever should answer ended instead."""
    version, _, told = head.partition(b" ")
    if not version.startswith(b"HTTP/"):
        raise ValueError("this is no answer")
    return int(told.split(b" ", 1)[0])
