"""The source files of htdag: read once for all architecture tests, parsed for each that asks."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("contracts", "services")


class Source(NamedTuple):
    """One Python file: its path in the checkout, and its text."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax tree, which nobody keeps: those of all files would slow every collection of garbage down."""
        return ast.parse(self.text, self.path)


@functools.cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file below `folders`, programs without a suffix included, in order of path."""
    found = []
    for folder in folders or PACKAGES:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and _is_python(path):
                found.append(Source(str(path.relative_to(ROOT)), path.read_text()))
    return tuple(found)


def _is_python(path: Path) -> bool:
    if path.suffix:
        return path.suffix == ".py"
    with path.open("rb") as file:
        return file.readline().startswith(b"#!") and b"python" in path.read_bytes()[:64]


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls(source: Source) -> Iterator[ast.Call]:
    """Every call of a file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield node


def called_name(call: ast.Call) -> str:
    """The last part of what is called: `f` for `a.b.f(…)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def first_text(call: ast.Call) -> str | None:
    """The first argument when it is a literal text."""
    if call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
        return call.args[0].value
    return None
