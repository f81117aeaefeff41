"""A Python environment is also found where the machine has it, and nothing else of the machine is."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.policy_gateway.decision.plans import Profile
from services.policy_gateway.sandbox.box import Bind, Box, Link
from services.policy_gateway.sandbox.twins import Twin, with_twin
from tests.attack.ground import Ground

PLACES = {"below-tmp": tempfile.gettempdir(), "elsewhere": "/var/tmp"}
LOOK = """
import os, subprocess, sys
print(subprocess.run(['greet'], env={'PATH': os.environ['PATH']}, capture_output=True, text=True, check=True).stdout)
print(os.environ['VIRTUAL_ENV'], sys.prefix, os.environ['PATH'].split(':')[0])
"""
SEE = """
import os, sys
seen, above = [], os.path.dirname(sys.argv[1])
while above not in ('/', '/tmp'):
    seen.append(os.listdir(above))
    above = os.path.dirname(above)
print(seen, [path for path in sys.argv[2:] if os.path.lexists(path)])
"""
WRITE = """
import os, sys
real, done = sys.argv[1], []
for path in (os.path.dirname(real) + '/x', real + '/.git/x', real + '/.git/hooks/pre-commit', real + '/../../x'):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
        done.append(path)
    except OSError:
        pass
try:
    os.close(os.open(real + '/made', os.O_WRONLY | os.O_CREAT))
    done.append('code')
except OSError:
    pass
print(done)
"""


@pytest.fixture(scope="module", params=PLACES)
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    """A checkout with an environment into which pip put a package with a console script."""
    folder = Path(tempfile.mkdtemp(prefix="htdag-twin-", dir=PLACES[request.param])).resolve()
    ground = Ground(folder / "home", profile="python")
    (folder / "home" / "secret").write_text("of the host")
    (ground.code / ".git" / "hooks").mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ground.code / ".venv"], check=True)
    pip = [pips_python(), "-m", "pip", "--python", f"{ground.code}/.venv/bin/python", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "--no-index", str(packed(folder))], check=True)
    yield ground
    shutil.rmtree(folder)


def pips_python() -> str:
    """Whose pip fills an environment that has none: to give it one takes seconds, and not every machine can."""
    pythons = (sys.executable, f"{sys.base_prefix}/bin/python3")
    found = [python for python in pythons if subprocess.run([python, "-c", "import pip"], check=False).returncode == 0]
    return found[0]


def packed(folder: Path) -> Path:
    """A wheel with one module and one console script."""
    wheel, about = folder / "greeting-1-py3-none-any.whl", "greeting-1.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("greeting.py", "def main():\n    print('hello from', __name__)\n")
        file.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1\n")
        file.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}/entry_points.txt", "[console_scripts]\ngreet = greeting:main\n")
        file.writestr(f"{about}/RECORD", "")
    return wheel


@pytest.mark.parametrize("profile", ["coder", "tester"])
async def test_a_console_script_of_the_environment_runs_in_the_box(ground: Ground, profile: Profile) -> None:
    assert (ground.code / ".venv/bin/greet").read_text().startswith(f"#!{ground.code}/.venv/bin/python")
    assert (await ground.shell("greet", profile=profile))["stdout"] == "hello from greeting\n"
    done = await ground.shell("python", "-c", LOOK, profile=profile)
    assert done["stdout"] == "hello from greeting\n\n/code/.venv /code/.venv /code/.venv/bin\n", done


@pytest.mark.parametrize("profile", ["coder", "tester"])
async def test_nothing_else_of_the_machine_is_seen(ground: Ground, profile: Profile) -> None:
    real = ground.code
    hidden = [str(real.parent / name) for name in ("secret", "state", "tmp")]
    done = await ground.shell("python", "-c", SEE, str(real), *hidden, profile=profile)
    parts = real.parts[2:] if real.is_relative_to("/tmp") else real.parts[1:]
    assert done["stdout"].strip() == f"{[[name] for name in reversed(parts[1:])]} []", done


@pytest.mark.parametrize(("profile", "may"), [("coder", ["code"]), ("tester", [])])
async def test_nothing_more_can_be_written(ground: Ground, profile: Profile, may: list[str]) -> None:
    await ground.sandbox.ready()
    (ground.code / "made").unlink(missing_ok=True)
    around = (ground.code.parent, ground.code.parent.parent)
    before = [sorted(os.listdir(folder)) for folder in around]
    done = await ground.shell("python", "-c", WRITE, str(ground.code), profile=profile)
    assert done["stdout"].strip() == str(may)
    assert (ground.code / "made").exists() == bool(may)
    assert not list((ground.code / ".git" / "hooks").iterdir())
    assert before == [sorted(os.listdir(folder)) for folder in around]


async def test_what_a_program_puts_in_the_way_leads_nowhere(tmp_path: Path) -> None:
    """The folder above in the box's own /tmp belongs to programs: a link there is not followed."""
    box, state = Box((Bind(tmp_path, "/tmp", writable=True),), {}, "/code"), tmp_path / "state"
    twin = Twin(Path("/tmp/above/project"), "/code")
    (tmp_path / "above").symlink_to("/oldroot/etc")
    assert with_twin(box, twin, tmp_path, state) == box
    (tmp_path / "above").unlink()
    (bind,) = set(with_twin(box, twin, tmp_path, state).binds) - set(box.binds)
    assert (bind.target, bind.writable, os.readlink(bind.source / "project")) == ("/tmp/above", False, "/code")


@pytest.mark.parametrize("real", ["/code", "/code/inner", "/usr/src/p", "/build/p", "/opt/chain", "/opt/chain/p"])
def test_the_boxs_own_folders_stay_its_own(tmp_path: Path, real: str) -> None:
    box = Box((Bind(Path("/opt/chain"), "/opt/chain"),), {}, "/code")
    assert with_twin(box, Twin(Path(real), "/code"), tmp_path, tmp_path) == box


def test_any_other_place_is_a_link_of_the_box(tmp_path: Path) -> None:
    box = with_twin(Box((), {}, "/code"), Twin(Path("/home/jo/project"), "/code"), tmp_path, tmp_path)
    assert box.links == (Link("/code", "/home/jo/project"),)
