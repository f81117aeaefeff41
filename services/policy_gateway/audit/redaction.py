"""Arguments as the audit keeps them: no secret, no content of a file, nothing large; and what is left of them says so.

Pure. What a secret is, `services/runtime/redaction.py` knows. Contents and what is too large stand as
`{"$cut": "<why>", "bytes": …}`, with a keyed digest. Contents (of files, of HTTP bodies) do not change a verdict but by
their size, so a call can be judged again with a stand-in of the same size: `restored`. Whatever else was taken out
makes the kept arguments inexact. What is kept is bounded, whatever came in: an entry that does not fit into a commit
would be an attempt without a trace.
"""

from typing import Any, Final, NamedTuple

import msgspec

from contracts.limits import REQUEST_BYTES_MAX, TOOL_ARGS_KEPT_MAX_BYTES
from services.policy_gateway.audit.fingerprint import Fingerprint
from services.runtime.redaction import HIDDEN, Masking, masked_tree

CONTENT_KEYS: Final = frozenset({"content", "data", "body"})
DEPTH_MAX: Final = 32
TEXT_SHOWN_MAX: Final = 256
ITEMS_SHOWN_MAX: Final = 64
SCANNED_MAX_BYTES: Final = 4 * TOOL_ARGS_KEPT_MAX_BYTES
"""Larger arguments are not searched for secrets; then nothing of them is shown in details either."""
CUT: Final = "$cut"
_OWN_WORDS: Final = frozenset(
    {"field", "reason", "known", "allowed", "role", "message", "code", "class", "hint", "rule"}
)
"""Details whose texts are the gateway's own words."""
_SORTED: Final = msgspec.json.Encoder(order="sorted").encode


class Kept(NamedTuple):
    """What is kept of a call: its arguments and options, the fingerprint of all arguments, whether they are complete.

    `masking` knows the secrets that were taken out.
    """

    args: Any
    opts: Any
    sha256: str
    exact: bool
    masking: Masking


def keep(args: Any, opts: Any, fingerprint: Fingerprint) -> Kept:
    """A call without what the audit must not hold. `masking` knows what was taken out of it."""
    masking = Masking()
    cutting = _Cutting(fingerprint=fingerprint)
    cut = cutting.walk("", args, 0)
    if len(_SORTED(cut)) > SCANNED_MAX_BYTES:
        masking.overflow = True
        cut = _short(cut)
    kept = masked_tree(cut, masking)
    exact = cutting.exact and kept == cut and _fits(kept) and not masking.overflow
    if not _fits(kept):
        kept = _bounded(masked_tree(_short(cut), masking), args)
    shown = _bounded(masked_tree(_short(opts), masking), opts)
    return Kept(kept, shown, fingerprint.of(_SORTED(args)), exact and shown == opts, masking)


def clean(value: Any, masking: Masking | None = None) -> Any:
    """Any JSON value (details of a refusal) as logs and the audit may show it: no secrets, nothing long.

    `masking` knows the secrets of the call: a detail names a word of it without what stood around the word.
    """
    masking = masking or Masking()
    known = _without_known("", _short(value), masking)
    return _bounded(masked_tree(known, masking), value)


def told(error: dict[str, Any], masking: Masking) -> dict[str, Any]:
    """An error of a tool as it is answered and recorded: without the secrets of its call."""
    kept = masked_tree(_without_known("", error, masking), masking)
    return dict(kept)


def restored(args: Any) -> Any:
    """Kept arguments with a stand-in for each content, to be judged again."""
    if isinstance(args, dict):
        if args.get(CUT) == "content":
            return "x" * min(int(args.get("bytes", 0)), REQUEST_BYTES_MAX)
        return {key: restored(value) for key, value in args.items()}
    return [restored(item) for item in args] if isinstance(args, list) else args


def _fits(kept: Any) -> bool:
    return len(_SORTED(kept)) <= TOOL_ARGS_KEPT_MAX_BYTES


def _short(value: Any) -> Any:
    return _Cutting(short=True).walk("", value, 0)


def _bounded(kept: Any, value: Any) -> Any:
    # A tree of short texts can still be large.
    return kept if _fits(kept) else {CUT: "large", "bytes": len(_SORTED(value))}


def _without_known(key: str, value: Any, masking: Masking) -> Any:
    """`value` without the secrets that the call is known to hold."""
    if isinstance(value, dict):
        return {masking.anywhere(str(name)): _without_known(str(name), item, masking) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_known(key, item, masking) for item in value]
    if isinstance(value, str):
        # What was not searched may hold anything.
        return masking.anywhere(value) if key in _OWN_WORDS or not masking.overflow else HIDDEN
    if isinstance(value, int | float) and not isinstance(value, bool) and str(value) in masking.found:
        return HIDDEN
    return value


class _Cutting:
    """Replaces contents and what is too large. Only the arguments themselves get digests, and those are keyed."""

    def __init__(self, *, short: bool = False, fingerprint: Fingerprint | None = None) -> None:
        self._short, self._fingerprint = short, fingerprint
        self._chars_max = TEXT_SHOWN_MAX if short else TOOL_ARGS_KEPT_MAX_BYTES
        self.exact = not short

    def walk(self, key: str, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(key, value)
        if isinstance(value, dict | list) and depth >= DEPTH_MAX:
            return self._cut("deep", value)
        if isinstance(value, dict) and CUT in value and not self._short:
            return self._cut("reserved", value)  # a mark of ours, made by the caller
        if isinstance(value, dict):
            pairs = list(value.items())[: ITEMS_SHOWN_MAX if self._short else None]
            kept = {self._key(name): self.walk(str(name), item, depth + 1) for name, item in pairs}
            return kept if len(pairs) == len(value) else kept | {CUT: f"{len(value)} keys"}
        if isinstance(value, list | tuple):
            items = list(value)[: ITEMS_SHOWN_MAX if self._short else None]
            shown = [self.walk(key, item, depth + 1) for item in items]
            return shown if len(items) == len(value) else [*shown, {CUT: f"{len(value)} items"}]
        return value

    def _key(self, name: Any) -> str:
        return str(name)[:TEXT_SHOWN_MAX] if self._short else str(name)

    def _text(self, key: str, value: str) -> Any:
        if key in CONTENT_KEYS:
            # Exact as far as a verdict goes: only the size matters.
            return self._mark("content", value)
        return self._cut("long", value) if len(value) > self._chars_max else value

    def _cut(self, why: str, value: Any) -> dict[str, Any]:
        self.exact = False
        return self._mark(why, value)

    def _mark(self, why: str, value: Any) -> dict[str, Any]:
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else _SORTED(value)
        digest = {"sha256": self._fingerprint.of(data)} if self._fingerprint else {}
        return {CUT: why, **digest, "bytes": len(data)}
