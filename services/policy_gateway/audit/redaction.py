"""Arguments as the audit keeps them: no secret, no content of a file, nothing large; and what is left of them says so.

Pure. What was taken out stands as `{"$cut": "<why>", "sha256": …, "bytes": …}`. Contents (of files, of HTTP bodies) do
not change a verdict but by their size, so a call can be judged again with a stand-in of the same size: `restored`.
Whatever else was taken out makes the kept arguments inexact. What is kept is bounded, whatever came in: an entry that
does not fit into a commit would be an attempt without a trace.
"""

import re
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgspec

from contracts.limits import REQUEST_BYTES_MAX, TOOL_ARGS_KEPT_MAX_BYTES

CONTENT_KEYS: Final = frozenset({"content", "data", "body"})
DEPTH_MAX: Final = 32
TEXT_SHOWN_MAX: Final = 256
ITEMS_SHOWN_MAX: Final = 64
CUT: Final = "$cut"
_SECRET_KEY: Final = re.compile(
    r"(?:totp|secret|passw(?:or)?d|(?:api|access|private)[_-]?key|authorization|credentials|cookie|token)s?\Z",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"(?:\bsk-[A-Za-z0-9_-]{16,}|\bAKIA[0-9A-Z]{16}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bxox[a-z]-[A-Za-z0-9-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]*:[^/\s@]+@)"
)
_SORTED: Final = msgspec.json.Encoder(order="sorted").encode


class Kept(NamedTuple):
    """What is kept of arguments, the digest of all of them, and whether the kept ones suffice to judge again."""

    args: Any
    sha256: str
    exact: bool


def keep(args: Any) -> Kept:
    """Arguments without what the audit must not hold."""
    walk = _Walk()
    kept = walk.clean("", args, 0)
    exact = walk.exact and _fits(kept)
    digest = sha256(_SORTED(args)).hexdigest()
    return Kept(kept if _fits(kept) else clean(args), digest, exact)


def clean(value: Any) -> Any:
    """Any JSON value (details of a refusal) as logs and the audit may show it: no secrets, nothing long."""
    kept = _Walk(short=True).clean("", value, 0)
    # A tree of short texts can still be large; its digest would let a secret in it be guessed.
    return kept if _fits(kept) else {CUT: "large", "bytes": len(_SORTED(value))}


def restored(args: Any) -> Any:
    """Kept arguments with a stand-in for each content, to be judged again."""
    if isinstance(args, dict):
        if args.get(CUT) == "content":
            return "x" * min(int(args.get("bytes", 0)), REQUEST_BYTES_MAX)
        return {key: restored(value) for key, value in args.items()}
    return [restored(item) for item in args] if isinstance(args, list) else args


def _fits(kept: Any) -> bool:
    return len(_SORTED(kept)) <= TOOL_ARGS_KEPT_MAX_BYTES


class _Walk:
    def __init__(self, *, short: bool = False) -> None:
        self._short = short
        self.exact = not short

    def clean(self, key: str, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(key, value)
        if value is not None and not isinstance(value, bool) and _SECRET_KEY.search(key):
            return self._cut("secret", value)
        if isinstance(value, dict | list) and depth >= DEPTH_MAX:
            return self._cut("deep", value)
        if isinstance(value, dict) and CUT in value:
            return self._cut("reserved", value)  # a mark of ours, made by the caller
        if isinstance(value, dict):
            pairs = list(value.items())[: ITEMS_SHOWN_MAX if self._short else None]
            kept = {self._key(name): self.clean(str(name), item, depth + 1) for name, item in pairs}
            return kept if len(pairs) == len(value) else kept | {CUT: f"{len(value)} keys"}
        if isinstance(value, list | tuple):
            items = list(value)[: ITEMS_SHOWN_MAX if self._short else None]
            shown = [self.clean(key, item, depth + 1) for item in items]
            return shown if len(items) == len(value) else [*shown, {CUT: f"{len(value)} items"}]
        return value

    def _key(self, name: Any) -> str:
        return str(name)[:TEXT_SHOWN_MAX] if self._short else str(name)

    def _text(self, key: str, value: str) -> Any:
        if _SECRET_KEY.search(key) or _SECRET_VALUE.search(value):
            return self._cut("secret", value)
        if key in CONTENT_KEYS:
            # Exact as far as a verdict goes: only the size matters.
            return self._mark("content", value)
        if self._short and len(value) > TEXT_SHOWN_MAX:
            return self._cut("long", value)
        return value

    def _cut(self, why: str, value: Any) -> dict[str, Any]:
        self.exact = False
        return self._mark(why, value)

    @staticmethod
    def _mark(why: str, value: Any) -> dict[str, Any]:
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else _SORTED(value)
        # The digest of a secret would let it be guessed.
        digest = {} if why == "secret" else {"sha256": sha256(data).hexdigest()}
        return {CUT: why, **digest, "bytes": len(data)}
