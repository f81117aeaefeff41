"""What goes into a script and what comes back."""

import pytest

from contracts.errors import Rejected
from services.runtime.lua.host import LuaHost

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_runs_main_with_argv_and_context(lua: LuaHost):
    src = "function main(a, b) return { sum = a + b + context.x, argc = #argv } end"
    assert await lua.call(src, {"x": 1}, argv=[2, 3]) == {"sum": 6, "argc": 2}


async def test_returns_the_chunk_s_value_without_main(lua: LuaHost):
    assert await lua.call("return context.names[2]", {"names": ["a", "b"]}) == "b"


async def test_nothing_returned_is_null(lua: LuaHost):
    assert await lua.call("local x = 1", {}) is None


async def test_null_is_nil_everywhere(lua: LuaHost):
    src = "return { context.a == nil, context.b[2] == nil, argv[1] == nil, select('#', main) }"
    assert await lua.call(src, {"a": None, "b": [1, None, 3]}, argv=[None]) == [True, True, True, 1]
    src = "function main(...) return { select('#', ...), (select(3, ...)) } end"
    assert await lua.call(src, None, argv=[1, None, 3]) == [3, 3]


async def test_no_context_is_an_empty_table(lua: LuaHost):
    assert await lua.call("return context.task == nil", None) is True


async def test_lists_maps_and_empty_tables(lua: LuaHost):
    src = "return { list = {1, 2}, map = { a = 1 }, empty = {}, sparse = { [1] = 'a', [3] = 'c' } }"
    value = await lua.call(src, {})
    assert value == {"list": [1, 2], "map": {"a": 1}, "empty": [], "sparse": {"1": "a", "3": "c"}}


async def test_an_empty_object_that_came_in_goes_out_as_one(lua: LuaHost):
    context = {"input": {}, "list": [], "deep": [{"a": {}}], "filled": {}}
    src = """function main(given)
      context.filled.x = 1
      return { context.input, context.list, context.deep, given, context.filled, {} }
    end"""
    assert await lua.call(src, context, argv=[{}]) == [{}, [], [{"a": {}}], {}, {"x": 1}, []]
    assert await lua.call("return context", {}) == {}
    assert await lua.call("context.input.x = 1 context.input.x = nil return { context.input }", context) == [{}]


async def test_whole_numbers_stay_whole_and_floats_stay_floats(lua: LuaHost):
    value = await lua.call("return { context.i, context.f, 7 // 2, 7 / 2 }", {"i": 2**53 + 1, "f": 2.0})
    assert value == [2**53 + 1, 2.0, 3, 3.5]
    assert [type(item) for item in value] == [int, float, int, float]


async def test_a_number_that_lua_cannot_hold_becomes_a_float(lua: LuaHost):
    assert await lua.call("return context.n[1]", {"n": [2**63]}) == float(2**63)


async def test_text_survives_both_ways(lua: LuaHost):
    text = "zürich \u2028 \x00 \n 東京 🎉"
    assert await lua.call("return context.t", {"t": text}) == text


async def test_the_context_is_a_copy(lua: LuaHost):
    context = {"task": {"id": "t"}}
    assert await lua.call("context.task.id = 'other' return context.task.id", context) == "other"
    assert context == {"task": {"id": "t"}}


async def test_no_state_outlives_a_call(lua: LuaHost):
    for _ in range(4):
        assert await lua.call("seen = (seen or 0) + 1 string.upper = nil table.insert = nil return seen", {}) == 1
    assert await lua.call("return ('a'):upper()", {}) == "A"


async def test_chance_is_the_same_in_every_call(lua: LuaHost):
    draws = [await lua.call("return { math.random(), math.random(100) }", {}) for _ in range(3)]
    assert draws[0] == draws[1] == draws[2]


async def test_the_usual_library_is_there(lua: LuaHost):
    src = """
    local parts = {}
    for word in string.gmatch("b a c", "%a") do table.insert(parts, word) end
    table.sort(parts)
    local ok, why = pcall(error, "caught", 0)
    return { table.concat(parts, "-"), string.format("%.1f", 10), ("ab"):rep(2, ","), tostring(ok), why,
      math.floor(2.7), utf8.len("äö"), select(2, "x", "y"), tonumber("0x10"), string.rep("x", 0) }
    """
    assert await lua.call(src, {}) == ["a-b-c", "10.0", "ab,ab", "false", "caught", 2, 2, "y", 16, ""]


@pytest.mark.parametrize(
    ("src", "says"),
    [
        ("return print", "function"),
        ("return { deep = { print } }", "function"),
        ("return 0/0", "not finite"),
        ("return { 1/0 }", "not finite"),
        ("return { [1.5] = 1 }", "key"),
        ("return { [true] = 1 }", "key"),
        ("return { [{}] = 1 }", "key"),
        ("return { [1] = 'a', ['1'] = 'b', [3] = 'c' }", "same key"),
        ("local t = {} t.t = t return t", "holds itself"),
        ("local t = {} for _ = 1, 101 do t = { t } end return t", "deeper than 100"),
        ("local t = {} for _ = 1, 30 do t = { t, t } end return t", "more than 100000"),
        ("return ('x'):rep(10000000)", "larger than"),
        ("return ('\\1'):rep(1000000)", "larger than"),
        ("return '\\xff'", "UTF-8"),
        ("return { ['\\xff'] = 1 }", "UTF-8"),
    ],
)
async def test_refuses_what_is_no_data(lua: LuaHost, src: str, says: str):
    with pytest.raises(Rejected) as refused:
        await lua.call(src, {})
    assert refused.value.code == "lua_bad_result"
    assert says in refused.value.message


async def test_the_deepest_allowed_result_comes_back(lua: LuaHost):
    value = await lua.call("local t = 'core' for _ = 1, 100 do t = { t } end return t", {})
    for _ in range(100):
        (value,) = value
    assert value == "core"


async def test_big_context_and_big_result(lua: LuaHost):
    names = [f"name-{index}" for index in range(20_000)]
    assert await lua.call("return context.names", {"names": names}) == names


@pytest.mark.parametrize(
    ("src", "context", "code"),
    [
        ("return 1", {"x": "x" * (5 << 20)}, "too_large"),
        ("-" * ((1 << 20) + 1), {}, "too_large"),
        ("return 1", {"x": object()}, "bad_request"),
        ("return '\ud800'", {}, "bad_request"),
    ],
)
async def test_refuses_what_cannot_be_sent(lua: LuaHost, src: str, context: object, code: str):
    with pytest.raises(Rejected) as refused:
        await lua.call(src, context)
    assert refused.value.code == code
