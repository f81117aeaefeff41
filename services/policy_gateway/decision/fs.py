"""The fs tool: read one file, or write one whole."""

from typing import Any, Final

from services.policy_gateway.decision.paths import in_git_folder, place
from services.policy_gateway.decision.plans import ReadPlan, WritePlan
from services.policy_gateway.decision.roles import Rights
from services.policy_gateway.decision.shape import bad_args, shown, unknown_key
from services.policy_gateway.decision.verdict import Deny

FILE_BYTES_MAX: Final = 16 << 20
_READ: Final = frozenset({"read"})
_WRITE: Final = frozenset({"write", "content", "data"})


def denied_write(rights: Rights, args: dict[str, Any] | None) -> Deny | None:
    """A write by a role that only reads is refused before anything else of the call is looked at."""
    if rights.fs_write or args is None or "write" not in args:
        return None
    return Deny("write_access_denied", "fs.write", {"path": shown(args["write"]), "role": rights.name})


def fs(rights: Rights, args: dict[str, Any]) -> ReadPlan | WritePlan | Deny:
    """Judge a read or a write."""
    if "write" in args:
        return _write(rights, args)
    if "read" not in args:
        return bad_args("read", "either read or write")
    path = place(args["read"], "read", rights.roots)
    if isinstance(path, Deny):
        return path
    return unknown_key(args, _READ) or ReadPlan(path, FILE_BYTES_MAX)


def _write(rights: Rights, args: dict[str, Any]) -> WritePlan | Deny:
    if "read" in args:
        return bad_args("read", "either read or write, not both")
    path = place(args["write"], "write", rights.roots)
    if isinstance(path, Deny):
        return path
    if in_git_folder(path.parts) and "host" not in rights.roots:
        return Deny("forbidden_path", "paths.git", {"path": shown(args["write"]), "reason": "git's own folder"})
    if ("content" in args) == ("data" in args):
        return bad_args("content", "the text to write, once")
    field = "content" if "content" in args else "data"
    text = args[field]
    if type(text) is not str:
        return bad_args(field, "a text")
    if len(text) > FILE_BYTES_MAX:
        return _too_large(len(text))
    try:
        content = text.encode()
    except UnicodeEncodeError:
        return bad_args(field, "Unicode text without lone surrogates")
    if len(content) > FILE_BYTES_MAX:
        return _too_large(len(content))
    return unknown_key(args, _WRITE) or WritePlan(path, content)


def _too_large(size: int) -> Deny:
    return Deny("too_large", "fs.size", {"field": "content", "bytes_max": FILE_BYTES_MAX, "bytes": size})
