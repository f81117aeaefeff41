"""Libraries that another one imports in case: read when something of them is first used, or not at all.

nats.py imports aiohttp for brokers behind WebSockets. That is a third of what a service imports before it is ready, and
of what most commands do at all; brokers at ws:// are rare, and Docker's client is loaded only where there is an engine.
structlog imports rich for tracebacks in colour, which we do not write: a fifth of the rest.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Later(ModuleType):
    """Stands in `sys.modules` for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        # What tools ask of every module there is (`__file__`, `__warningregistry__`) is no use of this one.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def import_later(name: str) -> None:
    """From now on `import name` costs nothing until it is used; nothing changes when it is imported already."""
    sys.modules.setdefault(name, Later(name))


@contextmanager
def without(name: str) -> Iterator[None]:
    """What is imported in here, and can do without the library `name`, does; everybody else has it as before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # so an import finds none
    try:
        yield
    finally:
        del sys.modules[name]
