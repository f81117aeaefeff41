"""The words of git commands: what may be a revision, a path, a new name, the value of an option."""

import re
from collections.abc import Sequence
from typing import Final

from services.policy_gateway.decision.git_table import VALUES
from services.policy_gateway.decision.paths import in_git_folder

_REVISION: Final = re.compile(r"[A-Za-z0-9_.@{}^~*!][A-Za-z0-9_.@{}^~/:*+!-]*", re.ASCII)
_NEW_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*", re.ASCII)
_HASH: Final = re.compile(r"[0-9a-fA-F]{40}(?:[0-9a-fA-F]{24})?")
_STASH: Final = re.compile(r"stash@\{[0-9]{1,6}\}|[0-9]{1,6}", re.ASCII)
_LINES: Final = re.compile(r"[^\n]{1,300}")
_WORD: Final = re.compile(r"[a-z0-9]{0,16}", re.ASCII)
_SORT: Final = re.compile(r"-?[A-Za-z:*=]{1,64}", re.ASCII)


def is_revision(word: str) -> bool:
    """A revision or range of the plain kind; never one that begins like an option, a refspec or pathspec magic."""
    if _REVISION.fullmatch(word) is None or word.strip(".") == "":
        return False
    return _stays_inside(word.replace(":", "/").split("/"))


def is_path(word: str) -> bool:
    """A relative path that stays inside and out of git's own folder; never pathspec magic, no control characters."""
    return word != "" and word[0] not in "/:" and word.isprintable() and _stays_inside(word.split("/"))


def is_revision_or_path(word: str) -> bool:
    """Either; but nothing that begins like an option or a refspec, the lone dash among them."""
    return word[:1] not in {"-", "+"} and (is_path(word) or is_revision(word))


def is_new_name(word: str) -> bool:
    """A name for a new branch or tag that can be taken for nothing else."""
    if _NEW_NAME.fullmatch(word) is None or _HASH.fullmatch(word) is not None or word.endswith("HEAD"):
        return False
    if word.startswith("refs/") or ".." in word or word[-1] == ".":
        return False
    return all(part != "" and part[0] != "." and not part.endswith(".lock") for part in word.split("/"))


def is_stash(word: str) -> bool:
    """An entry of the stash."""
    return _STASH.fullmatch(word) is not None


def is_value(name: str, value: str) -> bool:
    """Whether option `name` may have this value."""
    match VALUES.get(name):
        case None:
            return True
        case "format":
            # %G… and %(signature…) start a program that checks signatures.
            return "%G" not in value and "signature" not in value.lower()
        case "sort":
            return _SORT.fullmatch(value) is not None and "signature" not in value.lower()
        case "revision":
            return is_revision(value)
        case "lines":
            # `start,end:file` or `:function:file`; a file is read from the commit, never from the machine.
            _, colon, file = value.rpartition(":")
            return _LINES.fullmatch(value) is not None and (not colon or is_path(file))
        case "new_name":
            return is_new_name(value)
        case "word":
            return _WORD.fullmatch(value) is not None


def _stays_inside(parts: Sequence[str]) -> bool:
    return ".." not in parts and not in_git_folder(parts)
