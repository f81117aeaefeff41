"""What a gate's action is, in words for people: nothing in it that a terminal obeys, or that a reader cannot see.

The words of an action come from whoever planned the task, agents included. They are shown escaped, so that they cannot
draw a prompt, hide a part of themselves or turn the line around.
"""

import json
import re
from typing import Any, Final

SUMMARY_CHARS_MAX: Final = 160
_NODE: Final = "node"


def visible(text: str) -> str:
    """The text on one line; what is no printable character stands as its escape."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def as_json(value: Any, *, indent: int | None = None) -> str:
    """JSON for people: every character of it can be seen, and it still says the same."""
    separators = (",", ": ") if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    return "\n".join(visible(line) for line in text.split("\n"))


def summary(action: Any, chars_max: int = SUMMARY_CHARS_MAX) -> str:
    """The action in one line, such as `admin shell ["deploy.sh"]`; what is cut says so."""
    text = _words(action)
    if len(text) <= chars_max:
        return text
    more = len(text) - chars_max
    return f"{text[:chars_max]}… and {more} characters more"


def _words(action: Any) -> str:
    node = action.get(_NODE) if isinstance(action, dict) else None
    if not isinstance(node, dict):
        return as_json(action)
    role, kind = visible(str(action.get("role") or "")), str(node.get("type") or "")
    rest = {key: value for key, value in node.items() if key != "type" and value not in (None, "", [], {})}
    if kind == "tool":
        args = rest.get("args", {})
        told = args["cmd"] if isinstance(args, dict) and set(args) == {"cmd"} else args
        return f"{role} {visible(str(rest.get('tool') or ''))} {as_json(told)}".strip()
    return f"{role} {visible(kind)} {as_json(rest)}".strip()


def _escape(char: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
    if short is not None:
        return short
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", lambda unit: f"\\u{unit[0]}", units)
