"""The lint reads names as Lua does: text, comments, fields and own locals do not count."""

import pytest

from services.runtime.lua import lint


@pytest.mark.parametrize(
    "src",
    [
        "return { os = 1, io = 2; debug = 3 }",
        "return task.package, task.os.name",
        "local debug = true if debug then return 1 end",
        "local function f(io, os) return io + os end return f(1, 2)",
        "for load = 1, 3 do print(load) end",
        "-- os.execute('id')\nreturn 'io.open'",
        "--[[ os\nio ]] return [==[ require ]==]",
        "return \"os\", 'it\\'s os'",
        "return math.random(), ('x'):rep(3), string.format('%d', 1)",
        "local x <const>, os <close> = 1, nil return os",
    ],
)
def test_lets_pass_what_touches_nothing(src: str):
    assert lint.violation(src) is None


@pytest.mark.parametrize(
    ("src", "name", "line"),
    [
        ("return 1 + os.time()", "os", 1),
        ("local t = {\n io.open }", "io", 2),
        ("--[[\n\n]]\nrequire 'x'", "require", 4),
        ("return _ENV.os", "os", 1),
        ("return _G [ 'load' ]", "load", 1),
        ("local io = io", "io", 1),
        ("math.randomseed(3)", "math.randomseed", 1),
        ("return f(os)", "os", 1),
        ("return a..os", "os", 1),
    ],
)
def test_finds_the_name_and_its_line(src: str, name: str, line: int):
    assert lint.violation(src) == (name, line)


@pytest.mark.parametrize("src", ["x = :gen_tcp.listen(1)", "System.cmd('sh') do", "x = = os.time()", ":os.cmd('id')"])
def test_a_host_name_in_text_that_is_no_lua(src: str):
    assert lint.foreign(src) is not None


@pytest.mark.parametrize("src", ["return {quality: code}", "return {os: 1}", "x = = 1 -- os", "local Node = = 1"])
def test_a_mere_slip_is_no_violation(src: str):
    assert lint.foreign(src) is None


@pytest.mark.parametrize(
    ("line", "colon"),
    [("{a: 1}", True), ("{ x = 1, b : 2 }", True), ("t:insert(1)", False), ("{ a = t:get() }", False)],
)
def test_sees_fields_written_with_a_colon(line: str, colon: bool):
    assert lint.writes_fields_with_colon(line) is colon
