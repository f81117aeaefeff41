"""Tool calls in words: what was called, and how it ended. What a model wrote is shown without control characters."""

from collections.abc import Mapping
from typing import Any, Final

from services.runtime.redaction import masked_tree

CALL_CHARS_MAX: Final = 80
SIGN: Final = "⚒"
_TOLD: Final = ("read", "write", "method", "url", "image", "cmd", "src")


def call_text(tool: str, args: Any) -> str:
    """A tool call in a few words: `fs write /code/x.py`, `shell mix test`, `http GET https://…`."""
    found = args if isinstance(args, Mapping) else {}
    # A terminal is read by others too, and what CI prints by everybody.
    given = masked_tree({name: _beginning(found[name]) for name in _TOLD if name in found})
    match tool:
        case "fs":
            words = [tool, *(f"{verb} {given[verb]}" for verb in ("read", "write") if verb in given)]
        case "http":
            words = [tool, str(given.get("method", "GET")), str(given.get("url", ""))]
        case "docker":
            words = [tool, str(given.get("image", "")), *_words(given.get("cmd"))]
        case "lua":
            words = [tool, str(given.get("src", ""))]
        case _:
            words = [tool, *_words(given.get("cmd"))]
    return _shown(" ".join(words))


def outcome_text(value: Any, error: Mapping[str, Any] | None, *, truncated: bool = False) -> str:
    """How it ended: ok, the exit code, or the error's code; `denied` when the policy said no."""
    cut = "  (cut)" if truncated else ""
    if error is not None:
        word = "denied" if error.get("class") == "policy_violation" else "failed"
        return _shown(f"{word} {error.get('code', 'error')}")
    code = value.get("exit") if isinstance(value, Mapping) else None
    status = value.get("status") if isinstance(value, Mapping) else None
    if isinstance(code, int) and code:
        return f"exit {code}{cut}"
    return (f"{status}" if isinstance(status, int) else "ok") + cut


def _beginning(value: Any) -> Any:
    """As much of an argument as could be shown, and a little more."""
    if isinstance(value, list):
        return [_beginning(item) for item in value[:CALL_CHARS_MAX]]
    return value[: 16 * CALL_CHARS_MAX] if isinstance(value, str) else value


def _words(cmd: Any) -> list[str]:
    return [str(word) for word in cmd] if isinstance(cmd, list) else []


def _shown(text: str) -> str:
    line = "".join(char if char.isprintable() else " " for char in " ".join(text[: 4 * CALL_CHARS_MAX].split()))
    return line if len(line) <= CALL_CHARS_MAX else line[: CALL_CHARS_MAX - 1] + "…"
