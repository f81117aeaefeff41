"""The program of one Lua process: a request per line in, a reply per line out, JSON both ways.

Request: `{"op": "run"|"check", "source": …, "context": …, "argv": […], "cpu_s": …}`.
Reply: `{"ok": value}`, or `{"code": …, "message": …}` with `line` and `hint` where they are known.
The first line out is `{"ok": "ready"}`. Each request gets a fresh runtime, built while nobody waits.
"""

import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from lupa.lua54 import LuaError, LuaMemoryError, LuaRuntime

from services.runtime.lua import lint, values

INSTRUCTIONS_PER_LOOK: Final = 10_000
REP_BYTES_MAX: Final = 16 << 20
COPY_BYTES: Final = 1 << 20  # room to hand over the script itself
MESSAGE_CHARS_MAX: Final = 500
PLACE: Final = re.compile(r"(?s)(?:strategy:(\d+): )?(.*)")
OUR_OWN_PLACE: Final = re.compile(r'\[string "<python>"\]:\d+: ')
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, SIGKILL = 1, 38, 9
Reply = dict[str, Any]


def main() -> None:
    """Serve until the pipe closes. Arguments of the process: the settings as JSON."""
    settings = json.loads(sys.argv[-1])
    confine(settings)
    sys.path.clear()  # everything needed is imported
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever writes to the standard output by itself cannot enter the protocol
    serve(sys.stdin.buffer, replies, settings["memory_bytes_max"])


def confine(settings: dict[str, Any]) -> None:
    """Give up what a script could abuse; limits hold for this process whether or not bubblewrap is around it."""
    for limit, value in (
        (resource.RLIMIT_AS, settings["address_space_bytes_max"]),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    parent = settings["parent_pid"]
    if parent:  # bubblewrap does the same for its own child
        import ctypes

        libc = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(0)


def serve(requests: BinaryIO, replies: BinaryIO, memory_bytes_max: int) -> None:
    """Answer each line until the end of the input."""
    prelude = (Path(__file__).parent / "prelude.lua").read_text("utf-8")
    replies.write(b'{"ok":"ready"}\n')
    replies.flush()
    while True:
        world = World(prelude, memory_bytes_max)
        line = requests.readline()
        if not line:
            return
        reply = json.dumps(world.answer(line), ensure_ascii=False).encode("utf-8", "replace")
        if len(reply) > values.BYTES_MAX:
            reply = json.dumps(_no("lua_bad_result", f"the result is larger than {values.BYTES_MAX} bytes")).encode()
        replies.write(reply + b"\n")
        replies.flush()


class World:
    """One fresh Lua runtime, good for one request."""

    def __init__(self, prelude: str, memory_bytes_max: int) -> None:
        self._lua = LuaRuntime(
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_deny,
            max_memory=0,  # no limit yet, but one can be set
        )
        self._memory_bytes_max = memory_bytes_max
        names = (dict.fromkeys(names, True) for names in (lint.REFUSED, lint.REFUSED_IN_STRING, lint.REFUSED_IN_MATH))
        tables = [self._lua.table_from(table) for table in names]
        self._compile, self._run, self._object, self._is_object = self._lua.execute(
            prelude, *tables, REP_BYTES_MAX, INSTRUCTIONS_PER_LOOK
        )

    def answer(self, line: bytes) -> Reply:
        """Judge or run one script; every failure is a reply."""
        try:
            request = json.loads(line)
            if request["op"] == "check":
                return self._check(request["source"])
            if b"{}" in line:
                # Seldom, and a walk through everything: so only where there may be one.
                request["context"] = values.with_objects(request["context"], self._object)
                request["argv"] = values.with_objects(request["argv"], self._object)
            return self._call(request)
        except (LuaMemoryError, MemoryError):
            return _no("lua_memory", "the script used too much memory")
        except values.BadValue as why:
            return _no("lua_bad_result", str(why))
        except RecursionError:
            return _no("lua_bad_result", "the context is nested too deeply")
        except UnicodeDecodeError:
            return _no("lua_bad_result", "the result holds text that is not UTF-8")
        except LuaError:
            return _no("lua_error", "the script broke its runtime")

    def _check(self, source: str) -> Reply:
        self._lua.set_max_memory(self._memory_bytes_max)
        compiled = self._compile(source)
        if isinstance(compiled, tuple):
            return _syntax(source, compiled[1])
        found = lint.violation(source)
        if found:
            return _no("lua_restricted", f"`{found.name}` is not in the sandbox", line=found.line)
        return {"ok": None}

    def _call(self, request: dict[str, Any]) -> Reply:
        source, context, argv = request["source"], self._table(request["context"]), self._table(request["argv"])
        # Only the script runs under the limit: where lupa itself meets it, while it copies data in or out, Lua
        # ends the process.
        if self._lua.get_memory_used() + 2 * len(source) + COPY_BYTES > self._memory_bytes_max:
            return _no("lua_memory", "the context alone fills the memory of the script")
        self._lua.set_max_memory(self._memory_bytes_max)
        outcome, value = self._run(source, context, argv, len(request["argv"]), request["cpu_s"])
        self._lua.set_max_memory(0)
        if outcome == "ok":
            return {"ok": values.Reader(self._is_object).read(value)}
        if outcome == "lua_syntax":
            return _syntax(source, value)
        if outcome == "lua_error" and "not enough memory" in value:
            outcome = "lua_memory"
        return _placed(outcome, value)

    def _table(self, value: Any) -> Any:
        if not isinstance(value, (dict, list)):
            return value
        try:
            return self._lua.table_from(value, recursive=True)
        except OverflowError:
            return self._lua.table_from(values.within_lua(value), recursive=True)


def _deny(_owner: Any, _name: Any, _is_setting: bool) -> Any:
    raise AttributeError("denied")


def _no(code: str, message: str, **more: Any) -> Reply:
    return {"code": code, "message": message[:MESSAGE_CHARS_MAX], **more}


def _placed(code: str, text: str) -> Reply:
    """A reply whose line number was in Lua's own message."""
    text = OUR_OWN_PLACE.sub("", text)
    place = PLACE.match(text)
    if place is None or place[1] is None:
        return _no(code, text)
    return _no(code, f"line {place[1]}: {place[2]}", line=int(place[1]))


def _syntax(source: str, text: str) -> Reply:
    found = lint.foreign(source)
    if found:
        return _no("lua_restricted", f"`{found.name}` is not in the sandbox", line=found.line)
    reply = _placed("lua_syntax", text)
    lines = source.split("\n")
    line = reply.get("line", 0)
    if 0 < line <= len(lines) and lint.writes_fields_with_colon(lines[line - 1]):
        reply["hint"] = "tables use =: write { name = value }, not { name: value }"
    return reply
