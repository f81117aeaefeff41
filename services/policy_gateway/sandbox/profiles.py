"""The boxes of a workspace, one kind per profile: what may be written and what the environment says."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import Place, Profile
from services.policy_gateway.sandbox.box import Bind, Box

HOME: Final = "/tmp/home"
BUILD: Final = "/build"
"""The tester's own writable folder: it outlives the call, and no other role can put anything into it."""
UNIX_TABLE: Final = Path("/proc/net/unix")


def shell_box(
    profile: Profile, code: Path, tmp: Path, build: Path, cwd: Place, *, network: bool, environment: Mapping[str, str]
) -> Box:
    """The box of a program of the shell tool. Programs and toolchains are added by the caller.

    For a coder something must stand at /code/.git as long as the box lives: see `guard`.
    """
    refuse_sockets_of_the_host(code, tmp)
    writable = profile != "tester"
    binds = [Bind(code, "/code", writable), Bind(tmp, "/tmp", writable=True)]
    if profile == "coder":
        binds.append(Bind(code / ".git", "/code/.git"))
    if profile == "tester":
        build.mkdir(parents=True, exist_ok=True, mode=0o700)
        binds.append(Bind(build, BUILD, writable=True))
    home = f"{BUILD}/home" if profile == "tester" else HOME
    _make_home(build if profile == "tester" else tmp)
    named = {**_common(home), **(_build_folders() if profile == "tester" else {}), **environment}
    return Box(tuple(binds), named, cwd.shown, network=network)


def refuse_sockets_of_the_host(code: Path, tmp: Path) -> None:
    """A socket of a process outside would be a door in the wall: no namespace stands between a path and its socket."""
    try:
        lines = UNIX_TABLE.read_text("utf-8", "replace").splitlines()
    except OSError as why:
        raise Rejected("sandbox_unavailable", "the sockets of this machine cannot be listed") from why
    for line in lines:
        path = line.partition(" /")[2]
        for root, shown in ((code, "/code"), (tmp, "/tmp")):
            if path and f"/{path}".startswith(f"{root}/"):
                where = shown + f"/{path}".removeprefix(str(root))
                raise Rejected("sandbox_unavailable", "a process outside listens on a socket here", path=where)


def _make_home(parent: Path) -> None:
    """A home to write to. What programs put in its place earlier stays: it is theirs alone."""
    try:
        os.mkdir(parent / "home", 0o755)
    except OSError:
        return


def _common(home: str) -> dict[str, str]:
    """The whole environment: nothing of the gateway's own."""
    return {
        "HOME": home,
        "USER": "agent",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "TMPDIR": "/tmp",
        "XDG_CACHE_HOME": f"{home}/.cache",
        "PYTHONDONTWRITEBYTECODE": "1",
        "RUFF_CACHE_DIR": f"{home}/.cache/ruff",
        "MYPY_CACHE_DIR": f"{home}/.cache/mypy",
        "CARGO_HOME": f"{home}/.cargo",
        "CARGO_NET_OFFLINE": "true",
        "MIX_HOME": f"{home}/.mix",
        "HEX_HOME": f"{home}/.hex",
        "HEX_OFFLINE": "1",
        "npm_config_cache": f"{home}/.npm",
        "npm_config_offline": "true",
        "npm_config_update_notifier": "false",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
    }


def _build_folders() -> dict[str, str]:
    """Where tools that would write beside the code write for the tester."""
    return {
        "CARGO_TARGET_DIR": f"{BUILD}/cargo",
        "MIX_BUILD_ROOT": f"{BUILD}/mix",
        "COVERAGE_FILE": f"{BUILD}/coverage",
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{BUILD}/hypothesis",
        "PYTEST_ADDOPTS": f"-o cache_dir={BUILD}/pytest",
    }
