"""The docker tool: one command in a container of the fixed template, from an image on the list, with limits."""

import re
from typing import Any, Final

from services.policy_gateway.decision.argv import command
from services.policy_gateway.decision.facts import Facts
from services.policy_gateway.decision.options import Limits
from services.policy_gateway.decision.paths import place
from services.policy_gateway.decision.plans import DockerPlan, Mount, Place, Root
from services.policy_gateway.decision.roles import Rights
from services.policy_gateway.decision.shape import bad_args, shown, table_of, unknown_key
from services.policy_gateway.decision.verdict import Deny

MOUNTS_MAX: Final = 16
_KNOWN: Final = frozenset({"image", "cmd", "mounts", "working_dir", "cpu", "mem", "net"})
_MOUNT_KNOWN: Final = frozenset({"host", "cont", "ro"})
_CODE_ONLY: Final[frozenset[Root]] = frozenset(("code",))
_INSIDE: Final[frozenset[Root]] = frozenset(("host",))
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_IMAGE: Final = re.compile(
    rf"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?",
    re.ASCII,
)
IMAGE_CHARS_MAX: Final = 512
_ENGINE: Final = ("var/run", "run", "proc", "sys", "dev", "var/lib/docker", "var/lib/containerd")
"""Where engines listen, and where the kernel can be asked to lead there. Neither these, nor what is below or above."""
_CONTAINER_OWN: Final = frozenset({"proc", "sys", "dev"})


def docker(rights: Rights, args: dict[str, Any], asked: Limits, facts: Facts) -> DockerPlan | Deny:
    """Judge a container."""
    missing = [name for name, value in (("cpu", asked.cpus), ("mem", asked.mem_bytes)) if value is None]
    if missing and not rights.docker_any:
        return Deny("docker_resource_limits_required", "docker.limits", {"missing": missing})
    image = _image(rights, args.get("image"))
    if isinstance(image, Deny):
        return image
    mounts = _mounts(rights, args.get("mounts", []), facts)
    if isinstance(mounts, Deny):
        return mounts
    words = command(args.get("cmd"))
    if isinstance(words, Deny):
        return words
    folder = args.get("working_dir")
    if folder is not None:
        found = place(folder, "working_dir", _INSIDE, folder=True)
        if isinstance(found, Deny):
            return bad_args("working_dir", "an absolute path in the container, without . and ..", given=shown(folder))
        folder = found.shown
    return unknown_key(args, _KNOWN) or DockerPlan(image, tuple(words), folder, mounts, asked.cpus, asked.mem_bytes)


def _image(rights: Rights, name: Any) -> str | Deny:
    if type(name) is not str:
        return bad_args("image", "the name of an image as text")
    if not rights.docker_any:
        known = rights.images.get(name) or (name if name in rights.images.values() else None)
        if known is None:
            return Deny("forbidden_image", "docker.images", {"image": shown(name), "allowed": sorted(rights.images)})
        return known
    if len(name) > IMAGE_CHARS_MAX or _IMAGE.fullmatch(name) is None:
        return Deny("forbidden_image", "docker.images", {"image": shown(name), "reason": "no image reference"})
    return name


def _mounts(rights: Rights, value: Any, facts: Facts) -> tuple[Mount, ...] | Deny:
    if type(value) is not list or len(value) > MOUNTS_MAX:
        return bad_args("mounts", f"a list of at most {MOUNTS_MAX} mounts")
    found: list[Mount] = []
    for number, item in enumerate(value):
        mount = _mount(rights, item, f"mounts[{number}]", facts)
        if isinstance(mount, Deny):
            return mount
        if any(mount.container == other.container for other in found):
            return bad_args(f"mounts[{number}].cont", "each place of the container once")
        found.append(mount)
    return tuple(found)


def _mount(rights: Rights, value: Any, field: str, facts: Facts) -> Mount | Deny:
    item = table_of(value)
    if item is None:
        return bad_args(field, "an object of host, cont and ro")
    for key in ("host", "cont"):
        if type(item.get(key)) is not str:
            return bad_args(f"{field}.{key}", "a path as text")
    read_only = item.get("ro", True)
    if type(read_only) is not bool:
        return bad_args(f"{field}.ro", "true or false")
    host = place(item["host"], f"{field}.host", rights.roots if rights.docker_any else _CODE_ONLY, folder=True)
    if isinstance(host, Deny):
        return _forbidden(item, host.detail.get("reason", "a path"))
    if not (read_only or rights.docker_any):
        return _forbidden(item, "mounts of this role are read-only")
    if _leads_to_engine(host, facts.engine_sockets):
        return _forbidden(item, "nothing that leads to the engine or the kernel")
    inside = place(item["cont"], f"{field}.cont", _INSIDE, folder=True)
    if isinstance(inside, Deny):
        return _forbidden(item, "an absolute path in the container, without . and ..")
    if not inside.parts or inside.parts[0] in _CONTAINER_OWN:
        return _forbidden(item, "the container's root, /proc, /sys and /dev stay its own")
    if "ro" not in item and not rights.docker_any:
        return bad_args(f"{field}.ro", "true: mounts of this role are read-only, and the call says so")
    stranger = unknown_key(item, _MOUNT_KNOWN)
    if stranger is not None:
        return bad_args(f"{field}.{stranger.detail['field']}", "no such key")
    return Mount(host, inside.shown, read_only)


def _leads_to_engine(host: Place, sockets: tuple[str, ...]) -> bool:
    if any(part.endswith(".sock") for part in host.parts):
        return True
    if host.root != "host":
        return False
    path = "/".join(host.parts)
    if path == "":
        return True
    for closed in (*_ENGINE, *(socket.lstrip("/") for socket in sockets)):
        if path == closed or path.startswith(closed + "/") or closed.startswith(path + "/"):
            return True
    return False


def _forbidden(mount: dict[str, Any], reason: str) -> Deny:
    return Deny("forbidden_mount", "docker.mounts", {"mount": shown(mount), "reason": reason})
