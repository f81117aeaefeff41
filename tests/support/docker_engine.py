"""A private Docker engine: own socket, own data, no network; it ends with the test process, whatever is in it."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.support.nats_server import die_with_parent

SCRIPT: Final = Path(__file__).parents[2] / "scripts" / "docker-engine"
START_TIMEOUT_S: Final = 30.0


def missing() -> str | None:
    """Why no engine can be started here, or None. On CI as root there is no excuse."""
    if os.geteuid() != 0:
        return "dockerd needs root"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    if os.environ.get("CI") or all(shutil.which(program, path=path) for program in ("dockerd", "busybox")):
        return None
    return "there is no dockerd or no busybox (apt-get install docker.io busybox-static)"


class DockerEngine:
    """One engine, started and killed at will."""

    def __init__(self) -> None:
        # Not in pytest's folder: the path of a socket has a hundred characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="htdag-docker-"))
        self.socket = self.folder / "docker.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start dockerd and return when it answers; raises RuntimeError with its log when it does not."""
        log_path = self.folder / "log"
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [SCRIPT, "run", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # one prctl call, no lock taken
            )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            if self._answers():
                return
            time.sleep(0.02)
        raise RuntimeError(f"dockerd did not start:\n{log_path.read_text()[-2000:]}")

    def pause(self) -> None:
        """Freeze the engine: it takes connections and answers nothing."""
        os.kill(self._dockerd(), signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again after `pause()`."""
        os.kill(self._dockerd(), signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and all that runs in it, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def remove(self) -> None:
        """Kill it and remove its data and what the kernel kept for it."""
        self.kill()
        subprocess.run([SCRIPT, "stop", self.folder], check=True, timeout=START_TIMEOUT_S)

    def _dockerd(self) -> int:
        """The one child of the process that holds the engine's namespaces."""
        if self._process is None:
            raise RuntimeError("not running")
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as engine:
                engine.settimeout(2)
                engine.connect(str(self.socket))
                engine.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return b"OK" in engine.recv(4096)
        except OSError:
            return False
