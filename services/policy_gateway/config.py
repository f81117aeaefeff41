"""The section `policy` of the configuration."""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from services.policy_gateway.sandbox.limits import DEFAULTS
from services.runtime.config import Secret

SECTION: Final = "policy"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """`workspaces` is the folder of all workspaces; by default it stands in the home.

    At most `calls_light` calls of fs, http and lua and `calls_heavy` of shell, git and docker run at once; `calls_held`
    may be here in all; of each, one role gets three quarters at most. `auto_admin` lets admin tasks work without the
    approval of a human: it is logged loudly. With `admin_calls` off the operator's own calls in the role admin, outside
    of tasks, need a human's proof too, and so a task. `admin_network` gives the admin's shell and git the machine's
    network, loopback included; `docker_host` names the engine, else DOCKER_HOST does.
    A workspace may hold `workspace_bytes` in `workspace_files` files and folders; beyond that no program starts in it.
    `audit_key` (or `audit_key_file`) is the Ed25519 key that signs the audit, in hex; by default each home has its own.
    `audit_keys_trusted` are public keys of other gateways whose signatures `verify` accepts.
    `approval_keys` are public keys of identity (hex) whose releases are believed; without one identity is asked.
    """

    workspaces: str = ""
    calls_light: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 64
    calls_heavy: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    calls_held: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 1024
    workspace_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = DEFAULTS.folders_bytes
    workspace_files: Annotated[int, msgspec.Meta(ge=1_000)] = DEFAULTS.folders_entries
    lua_children: Annotated[int, msgspec.Meta(ge=1, le=32)] = 2
    auto_admin: bool = False
    admin_calls: bool = True
    admin_network: bool = False
    docker_host: str = ""
    audit_key: Secret | None = None
    audit_keys_trusted: list[str] = []
    approval_keys: list[str] = []

    def warnings(self) -> list[str]:
        """What whoever starts this must hear."""
        return ["AUTO ADMIN: tools of admin tasks work without a human (policy.auto_admin)."] if self.auto_admin else []

    def workspaces_path(self, home: Path) -> Path:
        """The folder of all workspaces."""
        return Path(self.workspaces).expanduser().absolute() if self.workspaces else home / "workspaces"
