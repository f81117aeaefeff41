"""Sizes, banned words, and names that must exist in the catalogues."""

import ast
import re
from collections.abc import Iterator

from contracts.errors import CATALOGUE
from contracts.metrics import BY_NAME
from tests.architecture.source import Source, called_name, calls, first_text, functions, sources

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
# A ratchet: files and functions that were longer when the rule came. A number may only fall; new entries are refused.
LONGER_FILES: dict[str, int] = {}
LONGER_FUNCTIONS: dict[str, int] = {}

BANNED = re.compile(r"\b(?:TODO\b|FIXME\b|NotImplementedError|breakpoint\(|pdb\.set_trace)")
BANNED_IN_TESTS = re.compile(r"pytest\.(skip|mark\.skip|importorskip|mark\.xfail)|\b(?:asyncio|time)\.sleep\((?!0\))")
SLEEPS_ALLOWED = {
    "tests/support/eventually.py": "it is what waits instead of everybody else",
    "tests/support/docker_engine.py": "it waits for a process, before any event loop runs",
    "tests/support/nats_server.py": "it waits for a process, before any event loop runs",
    "tests/support/service_process.py": "it waits for a process",
    "tests/architecture/test_tidy.py": "it names what is banned",
}


def everything() -> tuple[Source, ...]:
    return sources("contracts", "services", "scripts", "tests")


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its decorators and docstring."""
    first = node.body[0]
    told = ast.get_docstring(node) is not None
    docstring_lines = (first.end_lineno or first.lineno) - first.lineno + 1 if told else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines


def lines_with(pattern: re.Pattern[str], source: Source) -> list[str]:
    """The lines that match, as file:line and text."""
    lines = enumerate(source.text.splitlines(), 1)
    return [f"{source.path}:{number} {line.strip()}" for number, line in lines if pattern.search(line)]


def test_every_function_fits_one_screen() -> None:
    too_long = [
        f"{source.path}:{node.lineno} {node.name} has {length(node)} lines"
        for source in everything()
        for node in functions(source)
        if length(node) > LONGER_FUNCTIONS.get(f"{source.path}:{node.name}", FUNCTION_LINES_MAX)
    ]
    assert too_long == []


def test_every_file_holds_one_idea() -> None:
    lengths = {source.path: len(source.text.splitlines()) for source in everything()}
    too_long = [
        f"{path} has {lines} lines" for path, lines in lengths.items() if lines > LONGER_FILES.get(path, FILE_LINES_MAX)
    ]
    assert too_long == []


def test_no_leftovers() -> None:
    here = "tests/architecture/test_tidy.py"
    assert [line for source in everything() if source.path != here for line in lines_with(BANNED, source)] == []


def test_no_test_sleeps_or_skips() -> None:
    judged = [source for source in sources("tests") if source.path not in SLEEPS_ALLOWED]
    assert [line for source in judged for line in lines_with(BANNED_IN_TESTS, source)] == []


def test_no_error_is_swallowed() -> None:
    """A bare except hides crashes; a handler that only passes hides the rest, unless it says why on its line."""
    assert [handler for source in sources() for handler in swallowing(source)] == []


def swallowing(source: Source) -> Iterator[str]:
    """Handlers that catch everything and do nothing."""
    lines = source.text.splitlines()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        catches_all = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
        )
        if catches_all and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            yield f"{source.path}:{node.lineno} {lines[node.lineno - 1].strip()}"


def test_every_error_code_that_is_raised_is_in_the_catalogue() -> None:
    unknown = [
        f"{source.path}:{call.lineno} {first_text(call)}"
        for source in sources()
        for call in calls(source)
        if called_name(call) in {"Rejected", "failure"}
        and first_text(call) is not None
        and first_text(call) not in CATALOGUE
    ]
    assert unknown == []


def test_every_metric_that_is_counted_is_in_the_catalogue() -> None:
    unknown = [
        f"{source.path}:{call.lineno} {name}"
        for source in sources("services")
        for call in calls(source)
        if (name := first_text(call)) is not None and name.startswith("htdag_") and name not in BY_NAME
        if called_name(call) in {"inc", "set", "observe", "counter", "histogram"}
    ]
    assert unknown == []


def test_every_code_of_the_catalogue_is_used() -> None:
    """A code that nobody can get is a promise that nobody keeps."""
    texts = "\n".join(source.text for source in sources("services"))
    used = set(re.findall(r"[\"']([a-z0-9_.]+)(?=[\"'])", texts))
    for source in sources("contracts"):  # contracts raise what both sides refuse alike
        used |= set(re.findall(r"Rejected\([\"']([a-z0-9_.]+)[\"']", source.text))
    assert [code for code in CATALOGUE if code not in used] == [], "nothing raises these"


def test_every_metric_of_the_catalogue_is_used() -> None:
    texts = "\n".join(source.text for source in sources("services"))
    assert [metric for metric in BY_NAME if f'"{metric}"' not in texts] == [], "nothing counts these"
