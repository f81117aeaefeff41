"""Workspaces: the folders in which tools work.

A workspace is `<root>/<name>/` with `code/` and `tmp/`; tools see these two as `/code` and `/tmp` and nothing else of
the machine. `workspace.toml` beside them may bind a directory of the user as the code and set the profile. The folder
itself belongs to the gateway: no tool reaches it. Imports nothing heavy, since the console binds directories too.
"""

import contextlib
import json
import os
import re
import tomllib
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import msgspec

from contracts.errors import Rejected
from contracts.limits import ID_CHARS_MAX
from services.policy_gateway.tools.tool import Workspace
from services.runtime.private_files import replace_private

DEFAULT: Final = "default"
SETTINGS: Final = "workspace.toml"
SETTINGS_BYTES_MAX: Final = 64 << 10
NAME: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{ID_CHARS_MAX}}}")
NAME_CHARS_OF_DIRECTORY: Final = 40
WorkspaceProfile = Literal["seed", "python"]
SIGNS: Final[dict[str, WorkspaceProfile]] = {
    "pyproject.toml": "python",
    "setup.py": "python",
    "mix.exs": "seed",
    "Cargo.toml": "seed",
    "package.json": "seed",
    "gleam.toml": "seed",
    "requirements.txt": "python",
}
"""Files that tell what a project is made with; the first one found counts."""
TOP_ENTRIES_MAX: Final = 10_000
CLOSED: Final = tuple(
    Path(path)
    for path in ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
)
"""Folders of the system: neither they nor anything below them is a workspace."""
ROOTS_ONLY: Final = tuple(Path(path) for path in ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var"))
"""These hold far more than one project; a folder below may be one."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What stands in `workspace.toml`."""

    code: str | None = None
    profile: WorkspaceProfile | None = None


class Workspaces:
    """All workspaces below one root. `home`, where given, is the folder of this instance: it is never bound."""

    def __init__(self, root: Path, home: Path | None = None) -> None:
        self._root = root
        self._home = home
        self._read: dict[str, tuple[tuple[int, int, int], Settings]] = {}

    def start(self) -> None:
        """Make the root and the workspace `default`; raises Rejected(bad_config) where that is not possible."""
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._make(self._root / DEFAULT, with_code=True)
        except OSError as why:
            raise Rejected("bad_config", f"cannot make workspaces in {self._root}: {why.strerror}") from why

    def find(self, name: str | None) -> Workspace:
        """Return the workspace with its real folders; None names `default`. Raises Rejected(workspace_not_found)."""
        name = DEFAULT if name is None else name
        if not NAME.fullmatch(name):
            raise Rejected("workspace_not_found", workspace=name[:ID_CHARS_MAX])
        folder = self._root / name
        try:
            settings = self._settings(folder)
            code = Path(settings.code) if settings.code else folder / "code"
            tmp = folder / "tmp"
            if code.is_symlink() or not code.is_dir() or folder.is_symlink() or not folder.is_dir():
                raise Rejected("workspace_not_found", workspace=name)
            if not tmp.is_dir():
                tmp.mkdir(mode=0o755)
        except OSError:
            raise Rejected("workspace_not_found", workspace=name) from None
        return Workspace(name, code, tmp, settings.profile or profile_of(code))

    def bind(self, name: str | None, directory: Path, profile: WorkspaceProfile | None = None) -> Workspace:
        """Make a directory of the user the code of a workspace and return it; None derives the name from the path.

        Bound again, the workspace is the same. Raises Rejected: bad_request for a directory that is none or that holds
        more than a project, bad_id, conflict when the name belongs to another directory.
        """
        code = self._project(directory)
        name = name_of(code) if name is None else name
        if not NAME.fullmatch(name):
            raise Rejected("bad_id", f"{name!r} is no name of a workspace")
        folder = self._root / name
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            before = self._settings(folder)
            if (before.code or str(code)) != str(code) or (before.code is None and (folder / "code").exists()):
                raise Rejected("conflict", f"the workspace {name} has other code", hint="choose another name")
            self._make(folder, with_code=False)
            settings = Settings(code=str(code), profile=profile or before.profile)
            if settings != before:
                replace_private(folder / SETTINGS, _toml(settings))
        except OSError as why:
            raise Rejected("bad_config", f"cannot write workspace {name}: {why.strerror}") from why
        return self.find(name)

    def _project(self, directory: Path) -> Path:
        """The real path of a directory that may be bound."""
        try:
            code = directory.expanduser().resolve(strict=True)
        except (OSError, RuntimeError):
            raise Rejected("bad_request", f"{directory} is not there", hint="name a directory") from None
        if not code.is_dir() or not str(code).isprintable():
            raise Rejected("bad_request", f"{str(code)!r} is no directory, or its name cannot be written down")
        homes = {Path.home().resolve(), *(path.resolve() for path in Path("/home").glob("*"))}
        why = ""
        if code in ROOTS_ONLY or code in homes or any(home.is_relative_to(code) for home in homes):
            why = "it holds far more than one project"
        elif any(code.is_relative_to(closed) for closed in CLOSED):
            why = "it belongs to the system"
        elif any(_overlap(code, own.resolve()) for own in (self._root, self._home) if own is not None):
            why = "it holds the files of this instance"
        if why:
            raise Rejected("bad_request", f"{code} cannot be a workspace: {why}", hint="bind the project's own folder")
        return code

    def _make(self, folder: Path, *, with_code: bool) -> None:
        folder.mkdir(exist_ok=True, mode=0o700)
        for name in ("tmp", "code") if with_code else ("tmp",):
            # Containers run as nobody and must be able to read; the folder around is what keeps others out.
            (folder / name).mkdir(exist_ok=True, mode=0o755)

    def _settings(self, folder: Path) -> Settings:
        """What the workspace's file says, read again only when it has changed."""
        path = folder / SETTINGS
        try:
            status = path.lstat()
        except FileNotFoundError:
            return Settings()
        mark = (status.st_mtime_ns, status.st_size, status.st_ino)
        known = self._read.get(folder.name)
        if known and known[0] == mark:
            return known[1]
        settings = _parse(path, folder.name)
        self._read[folder.name] = (mark, settings)
        return settings


def name_of(directory: Path) -> str:
    """The name of the workspace that binds a directory: its last part and a short hash of all of it."""
    last = re.sub(r"[^A-Za-z0-9_-]+", "-", directory.name).strip("-")[:NAME_CHARS_OF_DIRECTORY] or "code"
    return f"{last}-{sha256(os.fsencode(directory)).hexdigest()[:8]}"


def profile_of(code: Path) -> WorkspaceProfile:
    """The profile that a project's own files ask for: a sign of a build tool, else a Python program at its top."""
    for name, profile in SIGNS.items():
        if (code / name).is_file():
            return profile
    with contextlib.suppress(OSError), os.scandir(code) as entries:
        if any(entry.name.endswith(".py") and entry.is_file() for entry in islice(entries, TOP_ENTRIES_MAX)):
            return "python"
    return "seed"


def _parse(path: Path, name: str) -> Settings:
    try:
        with path.open("rb") as file:
            text = file.read(SETTINGS_BYTES_MAX).decode("utf-8")
        settings = msgspec.convert(tomllib.loads(text), Settings)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as why:
        raise Rejected("bad_config", f"{SETTINGS} of the workspace {name} cannot be read: {why}") from None
    if settings.code is not None and not Path(settings.code).is_absolute():
        raise Rejected("bad_config", f"{SETTINGS} of the workspace {name}: code is no absolute path")
    return settings


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _toml(settings: Settings) -> str:
    fields = msgspec.to_builtins(settings)
    # A JSON text is a TOML text, but for one character.
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n".replace("\x7f", "\\u007f")
        for name, value in fields.items()
    )
