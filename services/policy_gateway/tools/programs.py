"""The gateway's own table of programs: from a name to what runs in the box, and what the box must hold for it."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from contracts.errors import Rejected
from services.policy_gateway.sandbox.box import SYSTEM, Bind
from services.policy_gateway.sandbox.twins import Twin
from services.policy_gateway.tools.tool import Workspace

SEARCHED: Final = ("/usr/local/bin", "/usr/bin", "/bin")
OWN_VENV: Final = "/opt/htdag"
"""Where the gateway's own environment is shown: its real place may lie below a folder that the box replaces."""
WORKSPACE_VENV: Final = ".venv"
SCRIPT_HEAD_BYTES: Final = 256
PATH_FILES_MAX: Final = 64
PATH_FILE_BYTES_MAX: Final = 1 << 16


class Toolchain(NamedTuple):
    """A folder with programs, shown read-only at its own place. All toolchains are in every box of a program."""

    folder: Path
    bins: tuple[str, ...] = ("bin",)
    environment: Mapping[str, str] = {}


class Program(NamedTuple):
    """How one program is run: the words that replace its name, and what its box needs."""

    argv: tuple[str, ...]
    binds: tuple[Bind, ...]
    environment: Mapping[str, str]
    twin: Twin | None = None
    """What scripts of its environment name by its place on the machine."""


class Programs:
    """The table. `names` come first, then the environments of Python, the toolchains, and the system's folders."""

    def __init__(
        self,
        *,
        toolchains: tuple[Toolchain, ...] | None = None,
        names: Mapping[str, Path] | None = None,
        python: Path | None = None,
    ) -> None:
        self._toolchains = rust_toolchains() if toolchains is None else toolchains
        self._names = dict(names or {})
        self._python = python or Path(sys.executable)
        self._base = Path(sys.base_prefix)

    def find(self, name: str, workspace: Workspace) -> Program:
        """The program of this name in this workspace. Raises Rejected("program_not_found")."""
        if not name or "/" in name or "\0" in name or name in {".", ".."}:
            raise Rejected("program_not_found", program=name)
        if name in self._names:
            found = self._named(self._names[name])
        elif workspace.profile == "python" and (python := self._of_python(name, workspace)):
            found = python
        else:
            found = self._of_system(name)
        return self._completed(found)

    def anything(self) -> Program:
        """A box with every toolchain, for a program that is named by a path inside (admin)."""
        return self._completed(Program((), (), {}))

    def _named(self, path: Path) -> Program:
        if not os.access(path, os.X_OK):
            raise Rejected("program_not_found", program=path.name)
        return Program((str(path),), _own_place(_prefix(path)), {})

    def _of_system(self, name: str) -> Program:
        for folder in self._bins():
            path = Path(folder) / name
            if os.access(path, os.X_OK) and path.is_file():
                real = Path(os.path.realpath(path))
                binds = () if self._is_shown(real) else _own_place(_prefix(real))
                return Program((str(path),), binds, {})
        raise Rejected("program_not_found", program=name)

    def _of_python(self, name: str, workspace: Workspace) -> Program | None:
        """The workspace's own environment, else the one that the gateway itself runs in."""
        own = workspace.code / WORKSPACE_VENV
        if os.path.lexists(own / "bin" / name):
            inside = f"/code/{WORKSPACE_VENV}"
            if not self._is_trusted(own / "bin" / "python"):
                message = "the workspace's .venv uses a Python that is not in the gateway's table"
                raise Rejected("program_not_found", message, program=name)
            extra = {"PYTHONPATH": ":".join(below)} if (below := _path_files(own, workspace.code)) else {}
            found = self._in_venv(own, inside, name, extra)
            return found._replace(twin=Twin(workspace.code, "/code"))
        venv = self._python.parent.parent
        if not os.access(venv / "bin" / name, os.X_OK):
            return None
        if self._is_shown(venv):
            return Program((str(venv / "bin" / name),), self._base_binds(), {})
        found = self._in_venv(venv, OWN_VENV, name, {})
        return found._replace(binds=(*found.binds, Bind(venv, OWN_VENV)), twin=Twin(venv, OWN_VENV))

    def _in_venv(self, venv: Path, inside: str, name: str, extra: Mapping[str, str]) -> Program:
        """A script names its interpreter by a path of the host: so the interpreter is named here."""
        argv: tuple[str, ...] = (f"{inside}/bin/{name}",)
        if _is_python_script(venv / "bin" / name):
            argv = (f"{inside}/bin/python", *argv)
        environment = {"VIRTUAL_ENV": inside, "PATH": f"{inside}/bin", **extra}
        return Program(argv, self._base_binds(), environment)

    def _base_binds(self) -> tuple[Bind, ...]:
        return () if self._is_shown(self._base) else _own_place(self._base)

    def _is_trusted(self, interpreter: Path) -> bool:
        """Whether a workspace's interpreter leads to a place of the table: links in a workspace open no other."""
        real = Path(os.path.realpath(interpreter))
        roots = [self._base, *(toolchain.folder for toolchain in self._toolchains), *map(Path, SYSTEM)]
        return any(real.is_relative_to(os.path.realpath(root)) for root in roots)

    def _is_shown(self, path: Path) -> bool:
        """Whether every box shows this path anyway."""
        roots = [*map(Path, SYSTEM), *(toolchain.folder for toolchain in self._toolchains)]
        return any(path.is_relative_to(root) for root in roots)

    def _bins(self) -> list[str]:
        own = [str(toolchain.folder / name) for toolchain in self._toolchains for name in toolchain.bins]
        return [*own, *SEARCHED]

    def _completed(self, found: Program) -> Program:
        binds, environment = list(found.binds), dict(found.environment)
        for toolchain in self._toolchains:
            binds += _own_place(toolchain.folder)
            environment = {**toolchain.environment, **environment}
        environment["PATH"] = ":".join(filter(None, [environment.get("PATH"), *self._bins()]))
        return found._replace(binds=tuple(dict.fromkeys(binds)), environment=environment)


def rust_toolchains(home: Path | None = None) -> tuple[Toolchain, ...]:
    """The default toolchain of rustup: its own folder, since the programs of ~/.cargo/bin only lead there."""
    rustup = Path(os.environ.get("RUSTUP_HOME") or (home or Path.home()) / ".rustup")
    try:
        settings = (rustup / "settings.toml").read_text()
    except OSError:
        return ()
    for line in settings.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "default_toolchain":
            folder = rustup / "toolchains" / value.strip().strip('"')
            return (Toolchain(folder),) if (folder / "bin").is_dir() else ()
    return ()


def _own_place(path: Path) -> tuple[Bind, ...]:
    return (Bind(path, str(path)),)


def _prefix(program: Path) -> Path:
    """The folder that a program needs around it; never a home or a root, where other things lie than programs."""
    prefix = program.parent.parent if program.parent.name in {"bin", "sbin"} else program.parent
    home = Path.home()
    if prefix == Path("/") or home.is_relative_to(prefix) or prefix.name == ".local" or prefix.parent == Path("/home"):
        return program
    return prefix


def _is_python_script(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(SCRIPT_HEAD_BYTES)
    except OSError:
        return False
    return (head.startswith(b"#!") and b"python" in head.split(b"\n", 1)[0]) or head.startswith(b"#!/bin/sh\n'''exec'")


def _path_files(venv: Path, code: Path) -> list[str]:
    """The folders of /code that editable installs name by their place on the host, as the box names them."""
    return list(dict.fromkeys(_lines_below(venv, str(code))))


def _lines_below(venv: Path, code: str) -> Iterator[str]:
    for file in sorted(venv.glob("lib/python3*/site-packages/*.pth"))[:PATH_FILES_MAX]:
        try:
            if file.is_symlink() or not file.is_file():
                continue
            with file.open("rb") as opened:
                text = opened.read(PATH_FILE_BYTES_MAX).decode("utf-8", "replace")
        except OSError:
            continue
        for line in text.splitlines():
            below = os.path.normpath(line.strip())
            if below == code or below.startswith(f"{code}/"):
                yield "/code" + below.removeprefix(code)
