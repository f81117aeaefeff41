"""`--workspace`: a directory becomes the code of a workspace, by a small file that policy-gateway reads.

`<root>/<name>/workspace.toml` says `code = "/absolute/directory"` and, when it was chosen, `profile`; `tmp/` beside it
is what tools see as /tmp. A word that is no directory is the name of a workspace that is there already.
"""

import json
import os
import re
import tomllib
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from contracts.errors import Rejected
from contracts.subjects import ID
from services.console.home import Home, cannot_write, write_private

Profile = Literal["seed", "python"]
SETTINGS: Final = "workspace.toml"
NAME_CHARS_OF_DIRECTORY: Final = 40
HASHED: Final = re.compile(r"-[0-9a-f]{8}")
"""What a name has behind the last part of its directory."""
FAR_TOO_MUCH: Final = tuple(Path(path) for path in ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var"))
"""Folders that hold far more than one project; one below them may be bound."""
OF_THE_SYSTEM: Final = tuple(
    Path(path) for path in ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr")
)


def workspace_of(word: str, home: Home, profile: Profile | None = None) -> str:
    """The workspace that a word names: a directory is bound, anything else must be a name.

    Raises Rejected bad_request for a directory that must not be bound, workspace_not_found, bad_config.
    """
    if not word.strip():
        raise Rejected("bad_request", "--workspace names nothing", field="workspace", hint="say . for this directory")
    directory = Path(word).expanduser()
    if directory.is_dir():
        return bind(directory, root_of(home), home, profile)
    if not ID.match(word):
        raise Rejected("workspace_not_found", f"there is no directory {word}", workspace=word[:64])
    if profile is not None:
        raise Rejected("bad_request", "--profile is for directories", hint="bind the directory again with it")
    return known_as(word, root_of(home))


def known_as(word: str, root: Path) -> str:
    """The name of the workspace that people call `word`: `shop` for `shop-1a2b3c4d` when there is only one.

    A name that is not there is left as it is: the gateway may have other workspaces than this machine.
    Raises Rejected conflict when several directories have this last part.
    """
    if (root / word).is_dir():
        return word
    found = sorted(path.name for path in root.glob(f"{word}-*") if HASHED.fullmatch(path.name.removeprefix(word)))
    if len(found) > 1:
        raise Rejected("conflict", f"several workspaces are called {word}", hint="name one of them", workspaces=found)
    return found[0] if found else word


def root_of(home: Home) -> Path:
    """Where workspaces are: `workspaces` of the section `policy`, else a folder of the home."""
    from services.runtime.config import Config

    rows = Config.load({"core.home": str(home.root)}).explain()
    told = next((row.value for row in rows if (row.section, row.key) == ("policy", "workspaces")), "")
    return Path(told).expanduser().absolute() if told else home.root / "workspaces"


def bind(directory: Path, root: Path, home: Home, profile: Profile | None = None) -> str:
    """Make a directory the code of a workspace; its name. The same directory is the same workspace again."""
    code = _project(directory, root, home)
    name = name_of(code)
    folder = root / name
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        (folder / "tmp").mkdir(exist_ok=True, mode=0o755)
    except OSError as error:
        raise cannot_write(folder, error) from error
    before = _settings(folder / SETTINGS)
    chosen = profile or before.get("profile")
    settings = {"code": str(code), **({"profile": chosen} if chosen else {})}
    if settings != before:
        write_private(folder / SETTINGS, "".join(f"{key} = {_toml(value)}\n" for key, value in settings.items()))
    return name


def name_of(code: Path) -> str:
    """The name of the workspace of a directory: its last part, and a mark of the whole path."""
    last = re.sub(r"[^A-Za-z0-9_-]+", "-", code.name).strip("-")[:NAME_CHARS_OF_DIRECTORY] or "code"
    return f"{last}-{sha256(os.fsencode(code)).hexdigest()[:8]}"


def _project(directory: Path, root: Path, home: Home) -> Path:
    code = directory.resolve()
    if not str(code).isprintable():
        raise Rejected("bad_request", f"{str(code)!r} cannot be written into a file", hint="name it in plain letters")
    people = Path.home().resolve()
    why = ""
    if code in FAR_TOO_MUCH or people.is_relative_to(code):
        why = "it holds far more than one project"
    elif any(code.is_relative_to(folder) for folder in OF_THE_SYSTEM):
        why = "it belongs to the system"
    elif any(_overlap(code, own.resolve()) for own in (home.root, root)):
        why = "it holds the files of this instance, or lies among them"
    if why:
        raise Rejected("bad_request", f"{code} cannot be a workspace: {why}", hint="name the project's own folder")
    return code


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Rejected("bad_config", f"{path} cannot be read: {error}", hint=f"remove {path}") from error


def _toml(value: str) -> str:
    """A JSON text is a TOML text, as long as it is printable."""
    return json.dumps(value, ensure_ascii=False)
