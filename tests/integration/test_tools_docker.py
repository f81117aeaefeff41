"""The docker tool in a real engine: what a container can do, what it cannot, and that nothing is left of it."""

import asyncio
import os
from pathlib import Path

import aiodocker
import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan, Mount, Place, Root
from services.policy_gateway.tools import mounts as mounting
from services.policy_gateway.tools.docker import CALL_LABEL, DEADLINE_LABEL, LABEL, OUTPUT_BYTES_MAX, Docker
from services.policy_gateway.tools.engine import engine_version
from services.policy_gateway.tools.image import build
from tests.support.docker_engine import DockerEngine
from tests.support.docker_world import BUSYBOX, World
from tests.support.eventually import eventually

PYTHON = "htdag/python:test"


async def test_a_command_runs_and_its_result_is_told(world: World) -> None:
    value = await world.sh("cat hello.txt; echo oops >&2; exit 3")
    assert value.pop("duration_ms") > 0
    assert value == {"stdout": "hello", "stderr": "oops\n", "exit": 3, "truncated": False}


async def test_the_command_is_data_not_a_shell_line(world: World) -> None:
    assert (await world.run("echo", "a; exit 7", "$HOME"))["stdout"] == "a; exit 7 $HOME\n"


async def test_there_is_no_network(world: World) -> None:
    for command in (
        "wget -T 2 -O - http://127.0.0.1:4222/",
        "nc -w 2 10.0.0.1 80 </dev/null",
        "ping -c 1 -W 1 10.0.0.1",
        "wget -T 2 http://github.com/",
    ):
        assert (await world.sh(command))["exit"] != 0, command
    assert (await world.sh("ls /sys/class/net; cat /proc/net/route | wc -l"))["stdout"].split() == ["lo", "1"]


async def test_nothing_can_be_written_but_the_private_tmp(world: World) -> None:
    script = "for at in /work/hello.txt /work/new /new /etc/passwd /bin/new; do echo x >$at && echo written $at; done"
    value = await world.sh(f"{script}; echo x >/tmp/new && echo $(cat /tmp/new); mount -o remount,rw / ; echo end")
    assert value["stdout"] == "x\nend\n"
    assert (world.workspace.code / "hello.txt").read_text() == "hello"
    assert os.listdir(world.workspace.code) == ["hello.txt"]


async def test_more_memory_than_asked_for_ends_the_program(world: World) -> None:
    value = await world.sh("x=a; while true; do x=$x$x$x$x; done")
    assert (value["exit"], value["oom"]) == (137, True)
    value = await world.sh("dd if=/dev/zero of=/tmp/big bs=1M count=200")  # a tmpfs counts as memory
    assert value["exit"] != 0


async def test_a_fork_bomb_is_bounded_and_ends(world: World) -> None:
    bomb = "b() { b | b & }; b; for i in 1 2 3; do sleep 0.3; ls -d /proc/[0-9]* | wc -l; done; echo survived"
    # It may leave no process for the shell's own commands: then the deadline ends it.
    call = asyncio.create_task(world.sh(bomb, timeout_s=6.0))
    await asyncio.wait([call])
    why = call.exception()
    if why is not None:
        assert isinstance(why, Rejected)
        assert why.code == "timeout"
    else:
        assert all(int(count) <= 257 for count in call.result()["stdout"].split() if count.isdigit())


async def test_the_deadline_kills_and_removes(world: World) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    why = await world.refused("sleep", "60", timeout_s=1.5)
    assert (why.code, why.detail) == ("timeout", {"timeout_ms": 1500})
    assert loop.time() - began_s < 5.0
    assert await world.containers() == []


async def test_what_was_printed_before_the_deadline_is_told(world: World) -> None:
    why = await world.refused("sh", "-c", "echo begun; echo warned >&2; sleep 60", timeout_s=6.0)
    assert why.detail == {"stdout": "begun\n", "stderr": "warned\n", "timeout_ms": 6000}


async def test_a_cancelled_call_leaves_nothing(world: World) -> None:
    for delay_s in (0.0, 0.01, 0.05, 0.3):
        call = asyncio.create_task(world.run("sleep", "60"))
        await asyncio.wait([call], timeout=delay_s)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await world.containers() == []


async def test_the_container_of_a_call_whose_gateway_died_is_buried_and_no_other(world: World) -> None:
    call = asyncio.create_task(world.run("sleep", "60"))
    await eventually(world.containers, timeout_s=10)
    after = Docker(world.engine.url)
    await after.bury("call-2")
    assert len(await world.containers()) == 1
    await after.bury("call-1")
    assert await world.containers() == []
    call.cancel()
    await asyncio.wait([call])


async def test_output_beyond_the_limit_is_cut_and_said(world: World) -> None:
    value = await world.sh("dd if=/dev/zero bs=64k count=40 2>/dev/null | tr '\\0' x; echo end >&2")
    half = "x" * (OUTPUT_BYTES_MAX // 2)
    left_out = (40 << 16) - OUTPUT_BYTES_MAX
    assert value["stdout"] == f"{half}\n[... {left_out} bytes left out here ...]\n{half}"
    assert value["truncated"]
    assert value["stderr"] == "end\n"


async def test_output_that_is_no_text_is_shown_as_well_as_possible(world: World) -> None:
    value = await world.sh("printf 'a\\377b'")
    assert (value["stdout"], value["lossy"]) == ("a\ufffdb", True)


async def test_a_program_or_image_that_is_not_there(world: World) -> None:
    why = await world.refused("nonesuch")
    assert (why.code, why.detail) == ("program_not_found", {"program": "nonesuch"})
    assert (await world.refused("/work/hello.txt")).code == "program_not_found"
    why = await world.refused("true", image="hexpm/elixir:none")
    assert (why.code, why.detail) == ("image_not_found", {"image": "hexpm/elixir:none"})


async def test_a_pinned_image_is_that_very_image(world: World) -> None:
    async with aiodocker.Docker(world.engine.url) as client:
        known = (await client.images.inspect(BUSYBOX))["Id"]
    assert (await world.run("echo", "same", image=f"{BUSYBOX}@{known}"))["stdout"] == "same\n"
    assert (await world.refused("true", image=f"{BUSYBOX}@sha256:{'0' * 64}")).code == "image_not_found"


async def test_the_same_files_make_the_same_image(world: World) -> None:
    first = await build(BUSYBOX, busybox=True, url=world.engine.url)
    assert await build(BUSYBOX, busybox=True, url=world.engine.url) == first


async def test_a_file_can_be_mounted_and_what_cannot_be_names_no_path_of_the_host(world: World) -> None:
    file = Mount(Place("code", ("hello.txt",)), "/work/hello", True)
    assert (await world.run("cat", "/work/hello", mounts=(file,)))["stdout"] == "hello"
    below_a_file = Mount(Place("code", ("hello.txt",)), "/bin/busybox/x", True)
    refused = (await world.refused("true", mounts=(below_a_file,), working_dir="/")).to_wire()
    assert refused["code"] == "container_refused"
    assert str(world.engine.folder) not in str(refused)
    assert str(mounting.copies_of(world.workspace)) not in str(refused)
    over_a_folder = Mount(Place("code", ("hello.txt",)), "/bin", True)
    refused = (await world.refused("true", mounts=(over_a_folder,), working_dir="/")).to_wire()
    assert str(mounting.copies_of(world.workspace)) not in str(refused)
    assert refused["class"] == "execution"


async def test_limits_that_the_engine_cannot_give_are_its_refusal_not_the_policys(world: World) -> None:
    refused = (await world.refused("true", mem_bytes=1000)).to_wire()
    assert (refused["class"], refused["code"]) == ("execution", "container_refused")
    assert "memory" in refused["reason"].lower()
    assert (await world.run("true", cpus=64.0))["exit"] == 0  # more than there is: all there is
    assert (await world.run("true", cpus=None, mem_bytes=None))["exit"] == 0


@pytest.mark.parametrize(
    ("root", "path"),
    [
        ("host", "/"),
        ("host", "/proc"),
        ("host", "/proc/1/root"),
        ("host", "/sys/fs/cgroup"),
        ("host", "/dev"),
        ("host", "/run"),
        ("host", "/var"),
        ("host", "/var/run/docker.sock"),
        ("code", "../tmp"),
        ("code", "link"),
        ("code", "link/etc"),
        ("code", "fifo"),
    ],
)
async def test_what_leads_to_the_machine_is_not_mounted(world: World, root: Root, path: str) -> None:
    (world.workspace.code / "link").symlink_to("/")
    os.mkfifo(world.workspace.code / "fifo")
    place = Place(root, tuple(part for part in path.split("/") if part))
    why = await world.refused("true", mounts=(Mount(place, "/work", True),))
    if path == "/var/run/docker.sock" and not Path("/var/run").is_symlink():
        assert why.code in {"forbidden_mount", "file_not_found"}
    else:
        assert why.code == "forbidden_mount"


async def test_the_engines_socket_is_never_mounted(world: World) -> None:
    for path in (world.engine.socket, world.engine.folder):
        place = Place("host", path.parts[1:])
        for read_only in (True, False):
            assert (await world.refused("true", mounts=(Mount(place, "/s", read_only),))).code == "forbidden_mount"


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/1", "/sys", "/dev/x", "work", "/work/../etc"])
async def test_a_mount_cannot_hide_what_the_sandbox_stands_on(world: World, target: str) -> None:
    mount = Mount(Place("code", ()), target, True)
    assert (await world.refused("true", mounts=(mount,), working_dir=None)).code == "forbidden_mount"


async def test_a_path_below_the_code_is_mounted_as_a_copy(world: World) -> None:
    lib = world.workspace.code / "lib"
    (lib / "deep").mkdir(parents=True)
    (lib / "deep/file").write_text("inner")
    (lib / "deep/run").write_text("#!/bin/sh\necho ran\n")
    (lib / "deep/run").chmod(0o700)
    (lib / "out").symlink_to("/etc/passwd")
    mounts = (Mount(Place("code", ("lib",)), "/work", True), Mount(Place("code", ("hello.txt",)), "/tmp/h", True))
    value = await world.sh("cat deep/file /tmp/h; deep/run; head -c 6 out; touch deep/new", mounts=mounts)
    assert value["stdout"] == "innerhelloran\nroot:x"  # the link leads to the container's own file
    assert "Read-only" in value["stderr"]
    writable = Mount(Place("code", ("lib",)), "/work", False)
    assert (await world.refused("true", mounts=(writable,))).code == "forbidden_mount"
    missing = Mount(Place("code", ("none",)), "/work", True)
    assert (await world.refused("true", mounts=(missing,))).code == "file_not_found"


async def test_a_copy_has_a_limit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.workspace.code / "lib").mkdir()
    for number in range(5):
        (world.workspace.code / f"lib/{number}").write_text("x" * 100)
    mount = Mount(Place("code", ("lib",)), "/work", True)
    monkeypatch.setattr(mounting, "COPY_ENTRIES_MAX", 5)
    assert (await world.refused("true", mounts=(mount,))).code == "too_large"
    monkeypatch.setattr(mounting, "COPY_ENTRIES_MAX", 6)
    monkeypatch.setattr(mounting, "COPY_BYTES_MAX", 499)
    assert (await world.refused("true", mounts=(mount,))).code == "too_large"
    monkeypatch.setattr(mounting, "COPY_BYTES_MAX", 500)
    assert (await world.run("true", mounts=(mount,)))["exit"] == 0


async def test_leftovers_of_a_gateway_that_died_are_reaped_and_nothing_else(world: World) -> None:
    late = mounting.copies_of(world.workspace) / "1000-aa"
    recent = mounting.copies_of(world.workspace) / "99999999999-bb"
    late.mkdir(parents=True)
    recent.mkdir()
    async with aiodocker.Docker(world.engine.url) as client:

        async def started(labels: dict[str, str]) -> str:
            container = await client.containers.create(
                {"Image": BUSYBOX, "Cmd": ["sleep", "60"], "Labels": labels, "HostConfig": {"NetworkMode": "none"}}
            )
            await container.start()
            return container.id

        ours = {LABEL: "1", CALL_LABEL: "call-1"}
        await started(ours | {DEADLINE_LABEL: "1000"})
        kept = {
            await started(ours | {DEADLINE_LABEL: "99999999999"}),
            await started({LABEL: "1", DEADLINE_LABEL: "1000"}),
            await started({"other": "1"}),
        }
        assert await world.tool.reap(world.workspace.tmp.parents[1]) == 2
        assert set(await world.containers()) == kept
        assert not late.exists()
        recent.rmdir()
        for container in await client.containers.list(all=True):
            await container.delete(force=True)


async def test_an_engine_that_is_not_there_or_does_not_answer(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.policy_gateway.tools.engine.ANSWER_S", 0.3)
    plan = DockerPlan(BUSYBOX, ("true",), None, (), None, None)
    for url in (f"unix://{tmp_path}/none.sock", "tcp://127.0.0.1:9", "nonsense"):
        with pytest.raises(Rejected) as caught:
            await Docker(url).run(plan, world.ticket())
        assert caught.value.code == "docker_unavailable"
        assert await Docker(url).reap() == 0
    world.engine.pause()
    try:
        assert (await world.refused("true")).code == "docker_unavailable"
    finally:
        world.engine.go_on()


async def test_the_engine_is_found_by_the_environment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", world.engine.url)
    plan = DockerPlan(BUSYBOX, ("echo", "found"), None, (), None, None)
    assert (await Docker().run(plan, world.ticket()))["stdout"] == "found\n"
    assert (await engine_version())[0].isdigit()


async def test_an_engine_that_dies_under_a_call(tmp_path: Path, docker_engine: DockerEngine) -> None:
    own = DockerEngine()
    try:
        own.start()
        await build(BUSYBOX, busybox=True, url=own.url)
        world = World(own, tmp_path)
        call = asyncio.create_task(world.run("sleep", "60"))
        await eventually(world.containers, timeout_s=10.0)
        own.kill()
        with pytest.raises(Rejected) as caught:
            await call
        assert caught.value.code == "docker_unavailable"
    finally:
        own.remove()


async def test_pytest_runs_in_an_image_of_this_machines_python(world: World) -> None:
    await build(PYTHON, python=True, packages=["pytest"], url=world.engine.url)
    (world.workspace.code / "test_it.py").write_text(
        "import json, ssl, sqlite3, ctypes\n\ndef test_good():\n    assert 1\n\ndef test_bad():\n    assert 0\n"
    )
    value = await world.run("pytest", "-q", image=PYTHON, mem_bytes=512 << 20)
    assert value["exit"] == 1
    assert "1 failed, 1 passed" in value["stdout"]
