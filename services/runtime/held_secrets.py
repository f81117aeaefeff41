"""The secrets that this process holds, by value: they are taken out of texts whatever they look like.

A key of somebody's own server may be any word, so no shape would find it. Whoever is given a secret says so once
(`hold`); masking (`services/runtime/redaction.py`) then knows it everywhere: in errors, logs and traces.
"""

import json
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, quote_plus

CHARS_MIN: Final = 6
"""Shorter values would be everyday words, and no secrets."""
CHARS_MAX: Final = 4_096
"""So much before a cut is searched, where a text must be cut before it is searched."""
HIDDEN: Final = "***"

_held: tuple[str, ...] = ()


def hold(values: Iterable[str]) -> None:
    """These are secrets from here on, as they are and as JSON texts and URLs write them."""
    global _held  # noqa: PLW0603  # what a process holds is one set, like its environment
    forms = set(_held)
    for value in values:
        bare = value.strip()
        if len(bare) >= CHARS_MIN:
            forms.update((bare, json.dumps(bare)[1:-1], quote(bare, safe=""), quote_plus(bare)))
    # The longest first: one may be the beginning of another.
    _held = tuple(sorted(forms, key=lambda form: (-len(form), form)))


def without_held(text: str) -> str:
    """`text` without them."""
    for secret in _held:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


def tree_without_held(value: Any) -> Any:
    """JSON data without them, in keys as well as in values."""
    if isinstance(value, str):
        return without_held(value)
    if isinstance(value, dict):
        return {without_held(str(key)): tree_without_held(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [tree_without_held(item) for item in value]
    return value
