"""Virtual paths: absolute, split on `/`, compared part by part. Nothing is decoded, folded or resolved."""

from collections.abc import Sequence
from typing import Any, Final

from services.policy_gateway.decision.plans import Place, Root
from services.policy_gateway.decision.shape import bad_args, is_text, shown
from services.policy_gateway.decision.verdict import Deny

PATH_BYTES_MAX: Final = 4095
PART_BYTES_MAX: Final = 255
CODE: Final = Place("code", ())
_VIRTUAL: Final[dict[str, Root]] = {"code": "code", "tmp": "tmp"}


def place(path: Any, field: str, roots: frozenset[Root], *, folder: bool = False) -> Place | Deny:
    """Where `path` points, below one of `roots`. A `folder` may end in one slash."""
    if not is_text(path):
        return bad_args(field, "a path as text")
    if folder and len(path) > 1 and path[-1] == "/":
        path = path[:-1]
    if path[:1] != "/":
        return forbidden(path, "absolute paths only", roots)
    if "\0" in path:
        return forbidden(path, "no NUL characters", roots)
    if len(path) > PATH_BYTES_MAX or (not path.isascii() and len(path.encode()) > PATH_BYTES_MAX):
        return forbidden(path, f"at most {PATH_BYTES_MAX} bytes", roots)
    parts = tuple(path[1:].split("/"))
    if folder and path == "/":
        parts = ()
    for part in parts:
        if part in {"", ".", ".."}:
            return forbidden(path, "no empty parts, no . and no ..", roots)
        if len(part) > PART_BYTES_MAX or len(part.encode()) > PART_BYTES_MAX:
            return forbidden(path, f"at most {PART_BYTES_MAX} bytes in a part", roots)
    root = _VIRTUAL.get(parts[0]) if parts else None
    if root is not None and root in roots:
        return Place(root, parts[1:])
    if root is None and "host" in roots:
        return Place("host", parts)
    return forbidden(path, "outside of what the role may touch", roots)


def forbidden(path: str, reason: str, roots: frozenset[Root]) -> Deny:
    """The path is closed."""
    opened = ["/" if root == "host" else f"/{root}" for root in sorted(roots)]
    return Deny("forbidden_path", "paths.roots", {"path": shown(path), "reason": reason, "roots": opened})


def in_git_folder(parts: Sequence[str]) -> bool:
    """Whether a part is git's own folder (or file), in any case of letters: some file systems fold it."""
    return any(len(part) == 4 and part.lower() == ".git" for part in parts)


def working_folder(cwd: Any, roots: frozenset[Root]) -> Place | Deny:
    """Where a program starts. git's own folder is none: a program there could be taken in by a planted repository."""
    found = place(cwd, "cwd", roots, folder=True)
    if isinstance(found, Deny):
        return found
    if in_git_folder(found.parts) and "host" not in roots:
        return Deny("forbidden_path", "paths.git", {"path": shown(cwd), "reason": "git's own folder"})
    return found
