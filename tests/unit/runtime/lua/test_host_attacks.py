"""Hostile and broken scripts: each ends in its own code, and the pool works on after each."""

import pytest

from contracts.errors import Rejected
from services.runtime.lua.host import LuaHost

pytestmark = pytest.mark.asyncio(loop_scope="module")

RESTRICTED = [
    "return os.execute('id')",
    "return io.open('/etc/passwd'):read('a')",
    "return io.popen('id'):read('a')",
    "return require('os')",
    "return package.loadlib('libc.so.6', 'system')",
    "return package.loaded.os",
    "return debug.getregistry()",
    "return load('return os')()",
    "return loadstring('return 1')",
    "return dofile('/etc/passwd')",
    "return collectgarbage('count')",
    "return string.dump(function() end)",
    "return ('x').dump(function() end)",
    "math.randomseed(1)",
    "return setmetatable({}, { __gc = function() while true do end end })",
    "local t = {} local m = {} m.__gc = print return setmetatable(t, m)",
    "pcall(setmetatable, {}, { __gc = print }) return 1",
    "return coroutine.wrap(function() return os.x end)()",
    "coroutine.resume(coroutine.create(function() return io.x end)) return 1",
    "local c = coroutine.wrap(function() coroutine.yield(1) return debug.x end) c() pcall(c) return 1",
    "xpcall(function() return os.x end, function() return 1 end) return 1",
    "xpcall(error, function() return os.x end) return 1",
    "local t = setmetatable({}, { __index = function() return os.x end }) return pcall(function() return t.a end)",
    "local t <close> = setmetatable({}, { __close = function() return os.x end }) return 1",
    "local t = setmetatable({}, { __close = function() return os.x end })\n"
    "local c = coroutine.create(function() local x <close> = t coroutine.yield() end)\n"
    "coroutine.resume(c) coroutine.close(c) return 1",
    "return xpcall(function() end, debug.traceback)",
    "return python.eval('1')",
    "return python.builtins.open('/etc/passwd')",
    "return context.__class__ or lupa.__class__",
    "return _G.os",
    "return _G['o' .. 's']",
    "return _ENV.io",
    "return (function() local _ENV = _ENV return os end)()",
    "pcall(function() return os.x end) return 1",
    "local ok = pcall(pcall, function() return io.x end) return ok",
    "function main()\n local socket = :gen_tcp.listen(4444, [:binary])\n return {port = 4444}\n end",
    "x = = os.execute('id')",
]
TIMEOUT = [
    "while true do end",
    "while true do pcall(function() while true do end end) end",
    "local function f() pcall(f) while true do end end while true do pcall(f) end",
    "repeat until false",
    "::again:: goto again",
    "function main() while true do pcall(error) end end",
    "return coroutine.wrap(function() while true do end end)()",
    "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
    "local c = coroutine.wrap(function() while true do coroutine.yield() end end) while true do c() end",
    "coroutine.wrap(function() coroutine.wrap(function() while true do pcall(error) end end)() end)()",
    "while true do xpcall(function() while true do end end, function() while true do end end) end",
    "xpcall(function() while true do end end, function() while true do end end)",
    "while true do xpcall(error, function(...) error(...) end) end",
    "local t = setmetatable({}, { __index = function(t, k) return t[k + 1] end })\n"
    "while true do pcall(function() return t[1] end) end",
    "local t <close> = setmetatable({}, { __close = function() while true do end end }) error('x')",
    "local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end",
    "return #setmetatable({}, { __len = function() while true do end end })",
    "return tostring(setmetatable({}, { __tostring = function() while true do end end }))",
    "local m = { __index = function() return '' end, __len = function() return 1 << 40 end }\n"
    "return table.concat(setmetatable({}, m))",
    "for _ in pairs(setmetatable({}, { __pairs = function() return function() return 1 end end })) do end",
    "return string.find(string.rep('a', 40), string.rep('a?', 40) .. string.rep('a', 40))",
    "return table.move({}, 1, 1e15, 2)",
    "local t = {} for i = 1, 1e5 do t[i] = i end table.sort(t, function() while true do end end)",
]
MEMORY = [
    "return string.rep('x', 1e10)",
    "return ('x'):rep(1 << 30)",
    "return ('x'):rep(1e9, ('y'):rep(1e6))",
    "local s = 'x' for _ = 1, 60 do s = s .. s end return s",
    "local t = {} for i = 1, 1e9 do t[i] = i end",
    "local t = {} while true do t[#t + 1] = {} end",
    "local t = {} while true do t = { t, ('x'):rep(1e6) .. #t } end",
    "local s = ('x'):rep(1e6) return (s:gsub('.', s))",
    "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
    "return coroutine.wrap(function() return ('x'):rep(1e10) end)()",
]
ERROR = [
    ("error('boom')", "boom"),
    ("error({ message = 'in a table' })", "in a table"),
    ("error({ code = 1 })", "holds no text"),
    ("error(print)", "holds no text"),
    ("error()", "holds no text"),
    ("error(42)", "42"),
    ("return context.a.b", "attempt to index a nil value"),
    ("return nil + 1", "arithmetic"),
    ("return undefined_name()", "undefined_name"),
    ("return ('x'):rep({})", "bad argument"),
    ("return table.concat({ {} })", "invalid value"),
    ("return string.format('%d', 1.5)", "no integer representation"),
]


@pytest.mark.parametrize(
    ("code", "src"),
    [("lua_restricted", src) for src in RESTRICTED]
    + [("lua_timeout", src) for src in TIMEOUT]
    + [("lua_memory", src) for src in MEMORY],
)
async def test_an_attack_ends_in_its_code_and_the_pool_works_on(lua: LuaHost, code: str, src: str):
    with pytest.raises(Rejected) as refused:
        await lua.call(src, {"x": 1}, timeout_ms=400 if code == "lua_timeout" else 5_000)
    assert refused.value.code == code
    assert "/" not in refused.value.message  # no path of this machine
    assert [await lua.call("return context.x", {"x": index}) for index in range(3)] == [0, 1, 2]


@pytest.mark.parametrize(("src", "says"), ERROR)
async def test_a_failing_script_says_why(lua: LuaHost, src: str, says: str):
    with pytest.raises(Rejected) as refused:
        await lua.call(src, {})
    assert refused.value.code == "lua_error"
    assert says in refused.value.message
    assert "[string" not in refused.value.message


OPEN = [
    ("local P = {} P.__index = P function P.new(n) return setmetatable({ n = n }, P) end\n"
     "function P:twice() return self.n * 2 end return P.new(21):twice()", 42),
    ("local function up(n) return coroutine.wrap(function() for i = 1, n do coroutine.yield(i) end end) end\n"
     "local sum = 0 for i in up(4) do sum = sum + i end return sum", 10),
    ("local c = coroutine.create(function(a) local b = coroutine.yield(a + 1) error('x' .. b, 0) end)\n"
     "local _, one = coroutine.resume(c, 1) local ok, why = coroutine.resume(c, 2)\n"
     "return { one, ok, why, coroutine.status(c) }", [2, False, "x2", "dead"]),
    ("return { pcall(coroutine.wrap(function() error({ message = 'm' }) end)) }", [False, {"message": "m"}]),
    ("return { xpcall(function(a) return a end, print, 7) }", [True, 7]),
    ("return { xpcall(error, function(why) return why .. '!' end, 'no') }", [False, "no!"]),
    ("return pcall(error) == false and getmetatable('') == false and getmetatable(_G) == false", True),
    ("return { rawget({ 5 }, 1), rawlen({ 1, 2 }), rawequal(1, 1), rawset({}, 'a', 1) }", [5, 2, True, {"a": 1}]),
    ("rawset(_ENV, 'mine', 1) return mine", 1),
    ("warn('x') return coroutine.isyieldable()", False),
    ("return select('#', coroutine.running())", 2),
    ("local m = { __index = print, __pairs = error, __len = error } return setmetatable({ 2 }, m)", [2]),
    ("local setmetatable, pcall, xpcall, coroutine = 1, 2, 3, 4 return setmetatable + pcall + xpcall + coroutine", 10),
]  # fmt: skip


@pytest.mark.parametrize(("src", "value"), OPEN)
async def test_what_is_harmless_works_as_in_plain_lua(lua: LuaHost, src: str, value: object):
    await lua.check(src)
    assert await lua.call(src, {}) == value


@pytest.mark.parametrize(
    "src",
    [
        "local function f() return coroutine.wrap(f)() end return f()",
        "local function f() coroutine.wrap(f)() end return f()",
        "local m = {} m.__index = setmetatable({}, m) return setmetatable({}, m).x",
        "return setmetatable(_G, {})",
        "return setmetatable('', {})",
        "return setmetatable(string, {})",
        "return getmetatable('').__index",
        "return coroutine.wrap(function() end)",
        "return coroutine.running()",
        "return assert(coroutine.resume(coroutine.running()))",
        "return coroutine.yield(1)",
        "return coroutine.close(coroutine.running())",
        "coroutine.wrap(function() setmetatable(_ENV, {}) end)()",
        "return setmetatable({}, { __metatable = 1 }), setmetatable(getmetatable, {})",
    ],
)
async def test_what_would_reach_behind_the_walls_fails_as_an_ordinary_error(lua: LuaHost, src: str):
    with pytest.raises(Rejected) as refused:
        await lua.call(src, {})
    assert refused.value.code in ("lua_error", "lua_bad_result", "lua_memory")
    assert "/" not in refused.value.message
    assert await lua.call("return context.x", {"x": 1}) == 1


async def test_no_way_leads_from_a_script_to_the_real_globals(lua: LuaHost):
    src = """
    local seen, found, todo = {}, {}, { _G, getmetatable, setmetatable, coroutine, string, math, table, utf8 }
    local closed = { os = 1, io = 1, debug = 1, package = 1, load = 1, loadfile = 1, dofile = 1, require = 1,
                     collectgarbage = 1, python = 1, dump = 1, sethook = 1, randomseed = 1 }
    while #todo > 0 do
      local one = table.remove(todo)
      if type(one) == "table" and not seen[one] then
        seen[one] = true
        for name, value in next, one do
          if closed[name] and value ~= 1 then found[#found + 1] = name end
          todo[#todo + 1], todo[#todo + 2] = value, getmetatable(value) or nil
        end
      end
    end
    return found
    """
    assert await lua.call(src, {}) == []


async def test_deep_recursion_ends(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("local function f() return f() + 1 end return f()", {})
    assert refused.value.code in ("lua_memory", "lua_error")
    assert await lua.call("return 1", {}) == 1


async def test_an_error_names_its_line(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("local a = 1\n\nreturn a.b.c", {})
    assert refused.value.detail["line"] == 3
    assert refused.value.message.startswith("line 3: ")


async def test_an_endless_string_rep_of_nothing_ends_at_once(lua: LuaHost):
    assert await lua.call("return string.rep('', 1e18)", {}, timeout_ms=1_000) == ""


async def test_print_does_not_reach_the_protocol(lua: LuaHost):
    assert await lua.call("for _ = 1, 1e4 do print('{\"ok\": 666}\\n') end return 1", {}) == 1
    assert await lua.call("return 2", {}) == 2


async def test_a_script_that_forges_a_reply_only_returns_text(lua: LuaHost):
    forged = '1"}\n{"ok": 666}\n'
    assert await lua.call("return context.t", {"t": forged}) == forged
    assert await lua.call("return 3", {}) == 3


async def test_bytecode_is_refused(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("\x1bLua\x54\x00\x19\x93", {})
    assert refused.value.code == "lua_syntax"


async def test_a_syntax_error_has_line_and_code(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("local a = 1\nlocal b = = 2", {})
    assert (refused.value.code, refused.value.detail["line"]) == ("lua_syntax", 2)


async def test_fields_with_colon_get_the_hint(lua: LuaHost):
    src = 'function main(code)\n  return {quality: "poor", reason: "Contains TODOs"}\nend'
    for judge in (lua.check(src), lua.call(src, {})):
        with pytest.raises(Rejected) as refused:
            await judge
        assert refused.value.code == "lua_syntax"
        assert refused.value.detail["line"] == 2
        assert "tables use =" in refused.value.to_wire()["hint"]


async def test_check_runs_nothing(lua: LuaHost):
    await lua.check("while true do end")
    await lua.check("error('not now')")


@pytest.mark.parametrize(
    ("src", "code", "line"),
    [
        ("\nos.execute('id')", "lua_restricted", 2),
        ("local os = os\nreturn 1", "lua_restricted", 1),
        ("return _G['io']", "lua_restricted", 1),
        ("return {\n a = string.dump }", "lua_restricted", 2),
        ("return :gen_tcp.listen(1)", "lua_restricted", 1),
        ("return (", "lua_syntax", 1),
    ],
)
async def test_check_refuses_before_anything_runs(lua: LuaHost, src: str, code: str, line: int):
    with pytest.raises(Rejected) as refused:
        await lua.check(src)
    assert (refused.value.code, refused.value.detail["line"]) == (code, line)


@pytest.mark.parametrize(
    "src",
    [
        "return " + "(" * 100_000,
        "return " + "{" * 100_000,
        "return " + "- " * 100_000 + "1",
        "do " * 100_000,
        "x=" + "[=" * 9_000,
        "return 1" + " .. 1" * 1_000 + " ..",
        "local a <" + "a" * 100_000,
        "return '" + "\\" * 99_999,
        "]]" * 9_000,
    ],
)
async def test_text_made_to_break_the_compiler_or_the_lint_is_refused(lua: LuaHost, src: str):
    with pytest.raises(Rejected) as refused:
        await lua.check(src)
    assert refused.value.code in ("lua_syntax", "lua_timeout")
    assert await lua.call("return 1", {}) == 1


async def test_the_largest_script_is_checked_in_time(lua: LuaHost):
    await lua.check("x=1 " * 260_000)


async def test_a_context_that_fills_the_memory_is_refused(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("return 1", {"x": [[] for _ in range(1_350_000)]}, timeout_ms=20_000)
    assert refused.value.code == "lua_memory"
    assert await lua.call("return 1", {}) == 1


async def test_a_result_read_from_a_full_memory_comes_back(lua: LuaHost):
    src = """
    local kept = {}
    pcall(function() while true do kept[#kept + 1] = ("x"):rep(1000) end end)
    local deep = {}
    return { deep, { deep, { deep } }, #kept > 10000 }
    """
    assert await lua.call(src, {}) == [[], [[], [[]]], True]


async def test_a_long_error_is_cut(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.call("error(('x'):rep(16e6))", {})
    assert len(refused.value.message) <= 500


async def test_check_refuses_a_script_that_is_too_large(lua: LuaHost):
    with pytest.raises(Rejected) as refused:
        await lua.check("x" * ((1 << 20) + 1))
    assert refused.value.code == "too_large"
