"""Repositories inside of a workspace's own: git must not look into them, for their configuration names programs.

git asks a submodule by running itself there, with the folder named outright: whose it is is not asked then, and what
`.gitmodules` says overrules what we say of it. So what makes such a folder a repository is covered in the box of git.
"""

import os
from pathlib import Path
from typing import Final

from services.policy_gateway.sandbox.box import Bind
from services.policy_gateway.sandbox.repository import BadRepository

COVERS_MAX: Final = 128
ENTRIES_MAX: Final = 500_000
_GIT: Final = ".git"


def covers(code: Path, state: Path) -> tuple[Bind, ...]:
    """What to lay over every `.git` below /code but its own: nothing, read-only.

    Raises BadRepository where there are too many, or one is a link; OSError when `state` cannot be written.
    """
    found = [path for path in _repositories(code) if path.parent != code]
    if len(found) > COVERS_MAX:
        raise BadRepository(f"there are more than {COVERS_MAX} repositories below /code")
    if not found:
        return ()
    folder, file = state / "no-repository", state / "no-gitfile"
    folder.mkdir(parents=True, exist_ok=True)
    file.touch()
    binds = []
    for path in found:
        shown = "/code/" + str(path.relative_to(code))
        if path.is_symlink():
            raise BadRepository(f"{shown} is a link")
        binds.append(Bind(folder if path.is_dir() else file, shown))
    return tuple(binds)


def _repositories(code: Path) -> list[Path]:
    found: list[Path] = []
    entries = 0
    for folder, folders, files in os.walk(code):
        entries += len(folders) + len(files)
        if entries > ENTRIES_MAX:
            raise BadRepository(f"/code has more than {ENTRIES_MAX} entries")
        if _GIT in folders or _GIT in files:
            found.append(Path(folder, _GIT))
        if _GIT in folders:
            folders.remove(_GIT)
    return found
