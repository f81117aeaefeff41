"""The lua tool: one chunk in a fresh Lua world, in a killable child that holds no file, network or host object."""

import asyncio
from typing import Any, Final

import msgspec

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import LuaPlan
from services.policy_gateway.tools.tool import Ticket
from services.runtime.lua.host import LuaHost, MetricSink

STAGE: Final = "tool"
RESULT_BYTES_MAX: Final = 1 << 20
TIMEOUT_MAX_MS: Final = 86_400_000
"""The role bounds a call; this only says that there is an end."""
BYTECODE: Final = "\x1b"
COLON_HINT: Final = "use = in tables: write { name = value }, not { name: value }"
SYNTAX_HINT: Final = "mend the line shown"
FAILED_HINT: Final = "look at the line shown"


class Lua:
    """Carries out Lua plans in `children` processes of its own; more calls wait in line until their deadline."""

    def __init__(self, *, children: int = 2, metrics: MetricSink | None = None, allow_bubblewrap: bool = True) -> None:
        self._host = LuaHost(
            children=children, metrics=metrics, allow_bubblewrap=allow_bubblewrap, timeout_max_ms=TIMEOUT_MAX_MS
        )

    @property
    def boxed(self) -> bool:
        """Whether bubblewrap holds the children. Without it every call fails: there is no weaker way."""
        return self._host.sandbox == "bubblewrap"

    async def start(self) -> None:
        """Start the children; raises Rejected(missing_dependency) when Lua is not here."""
        await self._host.start()

    async def stop(self) -> None:
        """Kill the children; calls in progress fail."""
        await self._host.stop()

    async def run(self, plan: LuaPlan, ticket: Ticket) -> Any:
        """Run the chunk and return the value of `main(argv...)`, or of the chunk when it defines no `main`.

        The value is JSON data, a map for a table with names. Raises Rejected: lua_restricted, lua_error (also when the
        chunk does not compile) with `line`, lua_memory, lua_bad_result, timeout, sandbox_unavailable.
        """
        if not self.boxed:
            raise Rejected("sandbox_unavailable", "bubblewrap cannot hold Lua on this machine")
        if plan.src.startswith(BYTECODE):
            raise Rejected("lua_restricted", "bytecode is no source")
        if "\0" in plan.src:
            raise Rejected("bad_args", field="src", reason="a NUL in the text")
        allowed_s = ticket.deadline_s - asyncio.get_running_loop().time()
        timeout_ms = round(allowed_s * 1000)
        try:
            async with asyncio.timeout_at(ticket.deadline_s):
                value = await self._host.call(plan.src, {}, argv=plan.argv, timeout_ms=max(timeout_ms, 1), stage=STAGE)
        except TimeoutError:
            raise Rejected("timeout", timeout_ms=timeout_ms) from None
        except Rejected as why:
            raise _told(why, timeout_ms) from None
        if len(msgspec.json.encode(value)) > RESULT_BYTES_MAX:
            raise Rejected("lua_bad_result", f"the result is larger than {RESULT_BYTES_MAX} bytes")
        return value


def _told(why: Rejected, timeout_ms: int) -> Rejected:
    """The pool's refusal in the words of the tools."""
    if why.code == "lua_timeout":
        return Rejected("timeout", timeout_ms=timeout_ms)
    if why.code == "lua_syntax":
        hint = COLON_HINT if "hint" in why.detail else SYNTAX_HINT
        return Rejected("lua_error", why.message, **why.detail | {"hint": hint})
    if why.code == "lua_error":
        return Rejected("lua_error", why.message, **{"hint": FAILED_HINT} | why.detail)
    return why
