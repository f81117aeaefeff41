"""The supervisor's sample by hand: its own commands, with paths and port of this test, start a whole instance."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.instance import environment
from tests.support.eventually import eventually
from tests.support.nats_server import free_port

INFRA = Path(__file__).parents[2] / "infra"
SAMPLE = "supervisor/htdag.env.sample"
SERVICES = ("planner", "executor", "identity", "llm-worker", "policy-gateway")


class ByHand:
    """A server that somebody set up after the sample."""

    def __init__(self, root: Path) -> None:
        self._infra, self.etc, self.home = root / "infra", root / "etc", root / "lib"
        self.etc.mkdir()
        self._changes = {"/etc/htdag": str(self.etc), "/var/lib/htdag": str(self.home),
                         "/opt/htdag/bin": str(Path(sys.executable).parent),
                         "127.0.0.1:4222": f"127.0.0.1:{free_port()}"}  # fmt: skip
        shutil.copytree(INFRA, self._infra)
        (self._infra / SAMPLE).write_text(self._adapted(SAMPLE))
        (self._infra / "nats/server.conf").write_text(self._adapted("nats/server.conf"))
        shutil.copy(self._infra / SAMPLE, self.etc / "htdag.env")
        self.commands = [line[4:] for line in self._adapted(SAMPLE).splitlines() if line.startswith("#   ")]

    def run(self, *commands: str) -> str:
        # Ports of other instances on this machine are theirs; nothing else is added to what the sample says.
        done = subprocess.run(
            ["bash", "-euc", "\n".join(commands)], cwd=self._infra, env=environment(HTDAG_CORE__HTTP_PORT="0"),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 3), done.stdout + done.stderr  # 3: supervisorctl says that not all runs yet
        return done.stdout

    def control(self, word: str) -> str:
        """Ask supervisord something."""
        conf = self.etc / "supervisord.conf"
        return self.run(
            f"set -a; . {self.etc}/htdag.env; set +a", f"{Path(sys.executable).parent}/supervisorctl -c {conf} {word}"
        )

    def _adapted(self, name: str) -> str:
        text = (INFRA / name).read_text()
        for old, new in self._changes.items():
            text = text.replace(old, new)
        return text


@pytest.fixture
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ByHand]:
    made = ByHand(tmp_path_factory.mktemp("hand"))
    yield made
    if (made.home / "run" / "supervisor.sock").exists():
        made.control("shutdown")


@pytest.mark.timeout(120)
async def test_the_commands_of_the_sample_start_an_instance(by_hand: ByHand) -> None:
    assert "not found" not in by_hand.run(*by_hand.commands)
    await eventually(lambda: by_hand.control("status").count("RUNNING") == len(SERVICES) + 1, timeout_s=40)
    # That its program runs is all that supervisord knows of a service.
    await eventually(lambda: '"msg":"ready"' in (by_hand.home / "logs" / "planner.log").read_text(), timeout_s=40)
    listed = by_hand.run(f"set -a; . {by_hand.etc}/htdag.env; set +a", '"$HTDAG_BIN" strategies list')
    assert "standard" in listed
    password = (by_hand.etc / "keys" / "operator").read_text().strip()
    running = [line for line in by_hand.control("status").splitlines() if "RUNNING" in line]
    pids = {line.split()[0]: line.split("pid ")[1].split(",")[0] for line in running}
    for service in SERVICES:
        assert password not in Path(f"/proc/{pids[service]}/environ").read_text(errors="replace"), service
    by_hand.control("shutdown")
    await eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()), timeout_s=60)
