"""The home of one instance: store, keys, logs, sockets and the record of what runs. Nothing is kept elsewhere."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from contracts.errors import Rejected
from services.console.processes import Process, alive
from services.runtime.private_files import private_umask, replace_private

Mode = Literal["foreground", "background"]


class ServiceRecord(msgspec.Struct, frozen=True):
    """One process of an instance. `state` is starting, ready, backoff, failed or stopped.

    `last_pid` is the one it had last, also while it has none: a change of it is a restart.
    """

    process: Process
    http: str | None = None
    state: str = "starting"
    restarts: int = 0
    last_pid: int = 0


class InstanceRecord(msgspec.Struct, frozen=True):
    """What runs in a home and how to reach it. The file is 0600: the URL holds a password."""

    home: str
    mode: Mode
    supervisor: Process
    operator_url: str
    broker: ServiceRecord | None = None
    services: dict[str, ServiceRecord] = {}

    @property
    def processes(self) -> list[Process]:
        """Supervisor first, then the services, the broker last."""
        inner = [record.process for record in self.services.values()]
        return [self.supervisor, *inner, *([self.broker.process] if self.broker else [])]

    @property
    def running(self) -> bool:
        """Whether its supervising process is alive."""
        return alive(self.supervisor)


class Home:
    """Paths of one instance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nats_store = root / "nats" / "store"
        self.keys = root / "keys"
        # Among the keys: it holds the operator's password and everybody's public key, and is no part of the store.
        self.nats_conf = self.keys / "nats.conf"
        self.nats_conf_of_old = root / "nats" / "server.conf"
        self.logs = root / "logs"
        self.run = root / "run"
        # Not in `run`: there every service removes the files of processes that are gone.
        self.instance_file = root / "instance.json"
        self.scale_file = root / "scale.json"
        self.supervisor_socket = self.run / "supervisor.sock"
        self.supervisor_pid = self.run / "supervisord.pid"

    @classmethod
    def locate(cls, flag: Path | None) -> "Home":
        """The home named by the flag, else by HTDAG_HOME, else the user's data directory."""
        if flag is not None:
            return cls(flag.expanduser().absolute())
        if os.environ.get("HTDAG_HOME"):
            return cls(Path(os.environ["HTDAG_HOME"]).expanduser().absolute())
        data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
        return cls(Path(data) / "htdag")

    def prepare(self) -> None:
        """Make the directories, private to the user. Raises Rejected("bad_config") when that is not possible."""
        try:
            for path in (self.root, self.nats_store, self.keys, self.logs, self.run):
                path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in (self.root, self.keys, self.run):
                path.chmod(0o700)
        except OSError as error:
            raise cannot_write(self.root, error) from error

    def secret(self, name: str) -> str:
        """The secret `name`, made on first use and kept 0600 in `keys`."""
        path = self.keys / name
        try:
            return path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            write_private(path, secrets.token_hex(24) + "\n")
            return path.read_text(encoding="ascii").strip()

    def record(self) -> InstanceRecord | None:
        """What the last `up` wrote down; None when nothing was ever started here."""
        try:
            data = self.instance_file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Rejected("bad_config", f"cannot read {self.instance_file}: {error.strerror}") from error
        try:
            return msgspec.json.decode(data, type=InstanceRecord)
        except msgspec.MsgspecError as error:
            raise Rejected(
                "bad_config", f"{self.instance_file} cannot be read: {error}", hint=f"remove {self.instance_file}"
            ) from error

    def write_record(self, record: InstanceRecord) -> None:
        """Replace the record of this home."""
        write_private(self.instance_file, msgspec.json.encode(record).decode())

    def running(self) -> InstanceRecord:
        """The record of the instance that runs here; raises Rejected("not_running")."""
        record = self.record()
        if record is None or not record.running:
            raise Rejected("not_running", home=str(self.root))
        return record

    @contextmanager
    def lock(self, *, of_running: bool = False) -> Iterator[None]:
        """Be the only `up` of this home; raises Rejected("already_running").

        `of_running`: the instance itself may run, and is worked on. Whatever is made in the block, also by programs
        that are started in it, is for this user alone: supervisord makes its log before it has a umask of its own.
        """
        with private_umask():
            self.prepare()
            descriptor = os.open(self.run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as error:
                    raise Rejected("already_running", home=str(self.root)) from error
                record = None if of_running else self.record()
                if record is not None and record.running and record.supervisor.pid != os.getpid():
                    raise Rejected("already_running", home=str(self.root), pid=record.supervisor.pid)
                yield
            finally:
                os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step, readable by the user only. Raises Rejected("bad_config") when the disk says no."""
    try:
        replace_private(path, text)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: Exception) -> Rejected:
    """The refusal for a path that cannot be written."""
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return Rejected("bad_config", f"cannot write {path}: {reason}", hint="choose another place with --home")
