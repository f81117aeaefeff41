"""The lua tool: what chunks give back, and that they reach nothing but Lua."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import LuaPlan
from services.policy_gateway.tools.lua import RESULT_BYTES_MAX, Lua
from services.policy_gateway.tools.tool import Ticket, Workspace

pytestmark = pytest.mark.box

WORKSPACE = Workspace("w", Path("/none"), Path("/none"), "seed")
OF_THE_SEED = """
function main()
  local socket = :gen_tcp.listen(4444, [:binary])
  return {port = 4444, status = "listening"}
end
"""


@pytest.fixture
async def lua() -> AsyncIterator[Lua]:
    tool = Lua(children=2)
    await tool.start()
    yield tool
    await tool.stop()


async def run(lua: Lua, src: str, *argv: Any, timeout_s: float = 20.0) -> Any:
    deadline_s = asyncio.get_running_loop().time() + timeout_s
    return await lua.run(LuaPlan(src, argv), Ticket("c", "critic", WORKSPACE, deadline_s))


async def refused(lua: Lua, src: str, *argv: Any, timeout_s: float = 20.0) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await run(lua, src, *argv, timeout_s=timeout_s)
    return caught.value


async def test_main_gets_the_arguments_and_its_table_comes_back(lua: Lua) -> None:
    chunk = """
    function main(code, limit)
      local lines = 0
      for _ in code:gmatch("[^\\n]+") do lines = lines + 1 end
      return { lines = lines, ok = lines <= limit, ratio = 0.5, tags = {"a", "b"}, none = nil }
    end
    """
    value = await run(lua, chunk, "one\ntwo\n", 3)
    assert value == {"lines": 2, "ok": True, "ratio": 0.5, "tags": ["a", "b"]}
    assert type(value["lines"]) is int


async def test_a_chunk_without_main_gives_its_own_value(lua: Lua) -> None:
    assert await run(lua, "return { sum = 1 + 2 }") == {"sum": 3}
    assert await run(lua, "return argv[1].name", {"name": "x"}) == "x"
    assert await run(lua, "return {1, 2, 3}") == [1, 2, 3]
    assert await run(lua, "return {}") == []
    assert await run(lua, "local unused = 1") is None


async def test_each_call_has_a_world_of_its_own(lua: Lua) -> None:
    for _ in range(4):
        assert await run(lua, "seen = (seen or 0) + 1; string.trim = 1; return seen") == 1
    assert await run(lua, "return string.trim") is None
    assert await run(lua, "return math.random(1000000)") == await run(lua, "return math.random(1000000)")


async def test_the_seeds_port_opener_is_restricted(lua: Lua) -> None:
    why = await refused(lua, OF_THE_SEED)
    assert (why.code, why.to_wire()["class"]) == ("lua_restricted", "policy_violation")
    assert why.detail["line"] == 3


@pytest.mark.parametrize(
    "src",
    [
        'os.execute("id")',
        'return os.getenv("HOME")',
        'return io.open("/etc/passwd")',
        'return require("socket")',
        'return load("return 1")()',
        'return loadstring("return 1")()',
        'return dofile("/etc/passwd")',
        "return package.loaded",
        "return debug.getregistry()",
        "return python.eval('1')",
        "collectgarbage()",
        "return string.dump(function() end)",
        "local e = _G; return e.os.execute",
        "local e = _ENV; return e['i' .. 'o']",
        "return pcall(function() return os.execute end)",
    ],
)
async def test_what_leads_out_of_lua_is_restricted(lua: Lua, src: str) -> None:
    assert (await refused(lua, src)).code == "lua_restricted"


@pytest.mark.parametrize(
    "src",
    [
        "return ('').format.__class__",
        "return argv.__class__",
        "return context.__init__.__globals__",
        "return (argv).__getitem__",
        "return ('x'):__class__()",
    ],
)
async def test_no_host_object_is_reached(lua: Lua, src: str) -> None:
    try:
        value = await run(lua, src, "x")
    except Rejected as why:
        value = None if why.code in {"lua_error", "lua_restricted"} else why
    assert value is None


async def test_bytecode_and_nul_are_no_source(lua: Lua) -> None:
    assert (await refused(lua, "\x1bLua\x54\x00")).code == "lua_restricted"
    assert (await refused(lua, "return '\0'")).code == "bad_args"


async def test_a_colon_in_a_table_is_told_with_line_and_hint(lua: Lua) -> None:
    why = await refused(lua, 'function main()\n  return {quality: "poor"}\nend')
    assert (why.code, why.detail["line"]) == ("lua_error", 2)
    assert why.to_wire()["hint"].startswith("use = in tables")


async def test_a_slip_is_no_violation(lua: Lua) -> None:
    why = await refused(lua, "return return")
    assert (why.code, why.detail["line"]) == ("lua_error", 1)
    why = await refused(lua, "local x = 1\nerror('bad ' .. x)")
    assert (why.code, why.detail["line"]) == ("lua_error", 2)
    assert "bad 1" in why.message


@pytest.mark.parametrize(
    "src",
    [
        'return string.rep("x", 1e10)',
        'local s = "x"; while true do s = s .. s end',
        "local t = {}; for i = 1, 1e9 do t[i] = {i} end",
        'return ("x"):rep(1e9)',
    ],
)
async def test_too_much_memory_ends_the_script_not_the_service(lua: Lua, src: str) -> None:
    assert (await refused(lua, src)).code == "lua_memory"
    assert await run(lua, "return 1") == 1


@pytest.mark.parametrize(
    "src",
    [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        'return string.find(string.rep("a", 40), string.rep("a?", 40) .. string.rep("a", 40) .. "b")',
        "local function f() return f() end; f()",
    ],
)
async def test_what_never_ends_meets_the_deadline(lua: Lua, src: str) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    why = await refused(lua, src, timeout_s=0.3)
    assert (why.code, why.detail) == ("timeout", {"timeout_ms": 300})
    assert loop.time() - began_s < 3
    assert await run(lua, "return 1") == 1


async def test_the_line_counts_into_the_deadline(lua: Lua) -> None:
    busy = [asyncio.create_task(run(lua, "while true do end", timeout_s=3)) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await refused(lua, "return 1", timeout_s=0.2)).code == "timeout"
    for call in busy:
        call.cancel()
    await asyncio.wait(busy)


async def test_results_are_bounded_data(lua: Lua) -> None:
    for src in (
        "return print",
        "return {f = function() end}",
        "return 0/0",
        "return {1/0}",
        "local t = {}; t.t = t; return t",
        "local t = {}; for i = 1, 200 do t = {t} end; return t",
        "local t = {}; for i = 1, 200000 do t[i] = 1 end; return t",
        f"return ('x'):rep({RESULT_BYTES_MAX})",
        "return '\\xff'",
    ):
        assert (await refused(lua, src)).code == "lua_bad_result", src
    assert len(await run(lua, f"return ('x'):rep({RESULT_BYTES_MAX - 2})")) == RESULT_BYTES_MAX - 2


async def test_without_the_box_nothing_runs() -> None:
    tool = Lua(children=1, allow_bubblewrap=False)
    await tool.start()
    try:
        assert (await refused(tool, "return 1")).code == "sandbox_unavailable"
    finally:
        await tool.stop()


async def test_many_calls_at_once_answer_all(lua: Lua) -> None:
    values = await asyncio.gather(*(run(lua, "return argv[1] * 2", number) for number in range(100)))
    assert values == [number * 2 for number in range(100)]
