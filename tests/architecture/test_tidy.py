"""Sizes, banned words, and names that must exist in the catalogues."""

import ast
import re

import pytest

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
ALL = sources("contracts", "services", "scripts", "tests")


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its decorators and docstring."""
    first = node.body[0]
    told = ast.get_docstring(node) is not None
    docstring_lines = (first.end_lineno or first.lineno) - first.lineno + 1 if told else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.path)
def test_a_function_fits_one_screen(source: Source) -> None:
    too_long = [
        f"{source.path}:{node.lineno} {node.name} has {length(node)} lines"
        for node in functions(source)
        if length(node) > LONGER_FUNCTIONS.get(f"{source.path}:{node.name}", FUNCTION_LINES_MAX)
    ]
    assert too_long == []


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.path)
def test_a_file_holds_one_idea(source: Source) -> None:
    assert len(source.text.splitlines()) <= LONGER_FILES.get(source.path, FILE_LINES_MAX)


@pytest.mark.parametrize("source", ALL, ids=lambda source: source.path)
def test_no_leftovers(source: Source) -> None:
    if source.path == "tests/architecture/test_tidy.py":
        return
    found = [
        f"{number}: {line.strip()}" for number, line in enumerate(source.text.splitlines(), 1) if BANNED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("source", sources("tests"), ids=lambda source: source.path)
def test_no_test_sleeps_or_skips(source: Source) -> None:
    if source.path in SLEEPS_ALLOWED:
        return
    lines = enumerate(source.text.splitlines(), 1)
    assert [f"{number}: {line.strip()}" for number, line in lines if BANNED_IN_TESTS.search(line)] == []


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_no_error_is_swallowed(source: Source) -> None:
    """A bare except hides crashes; a handler that only passes hides the rest, unless it says why on its line."""
    hidden = []
    lines = source.text.splitlines()
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        catches_all = node.type is None or (
            isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
        )
        if catches_all and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            hidden.append(f"{source.path}:{node.lineno} {lines[node.lineno - 1].strip()}")
    assert hidden == []


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


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_of_the_catalogue_is_used(code: str) -> None:
    """A code that nobody can get is a promise that nobody keeps."""
    mention = re.compile(rf"[\"']{code}[\"']")
    raised = re.compile(rf"Rejected\([\"']{code}[\"']")  # contracts raise what both sides refuse alike
    used = [source.path for source in sources("services") if mention.search(source.text)]
    used += [source.path for source in sources("contracts") if raised.search(source.text)]
    assert used, f"nothing raises {code}"


@pytest.mark.parametrize("metric", BY_NAME)
def test_every_metric_of_the_catalogue_is_used(metric: str) -> None:
    assert [source.path for source in sources("services") if f'"{metric}"' in source.text], f"nothing counts {metric}"
