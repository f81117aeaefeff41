"""Strategies as files: one Lua script, a directory of scripts, or a TOML file that names them."""

import tomllib
from pathlib import Path
from typing import Any, Final

from contracts.errors import Rejected
from contracts.limits import LUA_SOURCE_MAX_BYTES
from contracts.strategy import STAGE_ALIASES, STAGES

_KEYS: Final = frozenset({"name", "pattern", "priority", "description", "scripts"})


def read_strategy(path: Path, *, name: str | None, stage: str | None) -> dict[str, Any]:
    """The body of `strategy.put` for a file or directory. Raises Rejected bad_request, not_found or too_large."""
    if path.is_dir():
        scripts = {_stage(file.stem): _source(file) for file in sorted(path.glob("*.lua"))}
        if not scripts:
            raise Rejected("bad_request", f"{path} holds no .lua file", hint=f"name them {', '.join(STAGES)}")
        return {"name": name or path.resolve().name, "scripts": scripts}
    if path.suffix == ".toml":
        return _from_toml(path, name)
    if not path.exists():
        raise Rejected("not_found", f"there is no file {path}", hint="check the path")
    if stage is None and path.stem not in STAGES and path.stem not in STAGE_ALIASES:
        raise Rejected("bad_request", f"which stage is {path.name}?", hint=f"say --stage: {', '.join(STAGES)}")
    if name is None:
        raise Rejected("bad_request", "a single script needs a name", hint="say --name")
    return {"name": name, "scripts": {_stage(stage or path.stem): _source(path)}}


def _from_toml(path: Path, name: str | None) -> dict[str, Any]:
    """Keys name, pattern, priority, description, and [scripts]: stage = source, or the path of a .lua file."""
    try:
        table = tomllib.loads(_source(path))
    except tomllib.TOMLDecodeError as error:
        raise Rejected("bad_request", f"{path}: {error}", hint="one TOML document") from error
    unknown = sorted(set(table) - _KEYS)
    if unknown:
        raise Rejected("bad_request", f"{path}: unknown key {unknown[0]}", hint=f"keys: {', '.join(sorted(_KEYS))}")
    scripts = table.get("scripts", {})
    if not isinstance(scripts, dict):
        raise Rejected("bad_request", f"{path}: scripts must be a table", field="scripts")
    body = {key: value for key, value in table.items() if key != "scripts"}
    body["name"] = name or body.get("name") or path.stem
    body["scripts"] = {_stage(stage): _script(path.parent, str(text)) for stage, text in scripts.items()}
    return body


def _script(folder: Path, text: str) -> str:
    return _source(folder / text) if text.endswith(".lua") and "\n" not in text else text


def _stage(word: str) -> str:
    stage = STAGE_ALIASES.get(word, word)
    if stage not in STAGES:
        raise Rejected("bad_request", f"no such stage: {word}", hint=f"stages: {', '.join(STAGES)}", field="stage")
    return stage


def _source(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Rejected("not_found", f"there is no file {path}", hint="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected("bad_request", f"{path} cannot be read as UTF-8 text", hint="check the file") from error
    if len(text.encode()) > LUA_SOURCE_MAX_BYTES:
        raise Rejected("too_large", f"{path} is too long", max=LUA_SOURCE_MAX_BYTES)
    return text
