"""Whom a container runs as: it works on private files, and has no power over those of others."""

import os
from pathlib import Path

from services.policy_gateway.decision.plans import Mount, Place
from tests.support.docker_world import CODE, World


async def test_its_owner_runs_it_without_powers(world: World) -> None:
    os.chown(world.workspace.code, 1234, 1234)
    value = await world.sh("id -u; grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status; env; ps | wc -l")
    lines = value["stdout"].split("\n")
    assert lines[0] == "1234"
    assert [line.split() for line in lines[1:4]] == [
        ["CapEff:", "0000000000000000"],
        ["NoNewPrivs:", "1"],
        ["Seccomp:", "2"],
    ]
    assert not any(name in value["stdout"] for name in ("HTDAG_", "NATS_", "KEY", "SECRET", "DOCKER"))


async def test_an_admin_may_write_to_what_is_mounted(world: World) -> None:
    os.chown(world.workspace.code, 1234, 1234)
    mount = Mount(Place("code", ()), "/work", False)
    assert (await world.sh("echo made >made", mounts=(mount,)))["exit"] == 0
    assert (world.workspace.code / "made").read_text() == "made\n"


async def test_a_private_workspace_is_read_and_what_belongs_to_others_is_not(world: World) -> None:
    """Root's own workspace, when the gateway is root: root inside, and no power over anybody."""
    code = world.workspace.code
    code.chmod(0o700)
    (code / "hello.txt").chmod(0o600)
    (code / "foreign").write_text("secret")
    (code / "foreign").chmod(0o600)
    os.chown(code / "foreign", 1234, 1234)
    script = "id -u; cat hello.txt; cat foreign; chown 1 hello.txt; mknod /tmp/d b 8 0; echo 1 >/proc/sys/vm/swappiness"
    value = await world.sh(f"{script}; touch /dev/new /sys/new; grep -E '^Cap(Eff|Prm|Bnd|Amb):' /proc/self/status")
    uid, *rest = value["stdout"].split("\n")
    assert (uid, rest[0].startswith("hello"), "secret" in value["stdout"]) == ("0", True, False)
    assert value["stdout"].count("0000000000000000") == 4
    assert value["stderr"].count("denied") + value["stderr"].count("not permitted") >= 2
    assert (code / "hello.txt").stat().st_uid == 0


async def test_what_root_may_write_is_writable_for_an_admin(world: World) -> None:
    world.workspace.code.chmod(0o700)
    mount = Mount(Place("code", ()), "/work", False)
    assert (await world.sh("echo made >made", mounts=(mount,)))["exit"] == 0
    assert (world.workspace.code / "made").read_text() == "made\n"


async def test_nobody_is_root_to_read_the_machine(world: World, tmp_path: Path) -> None:
    secret = tmp_path / "machine"
    secret.mkdir()
    (secret / "file").write_text("secret")
    (secret / "file").chmod(0o600)
    mount = Mount(Place("host", secret.parts[1:]), "/machine", True)
    value = await world.run("cat", "/machine/file", mounts=(CODE, mount))
    assert (value["exit"], "secret" in value["stdout"]) == (1, False)
