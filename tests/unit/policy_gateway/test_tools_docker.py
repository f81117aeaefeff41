"""The template of containers and the archives of images, as data: no engine is needed to see what they hold."""

import asyncio
import io
import json
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import Rejected
from services.policy_gateway.decision.plans import DockerPlan, Mount, Place
from services.policy_gateway.tools import mounts, rootfs
from services.policy_gateway.tools.docker import Docker, template, user_of
from services.policy_gateway.tools.image import build, write_archive
from services.policy_gateway.tools.rootfs import Entry, RootFs
from services.policy_gateway.tools.tool import Ticket, Workspace
from tests.support.eventually import eventually

IMAGE = {"Id": "sha256:abc", "Config": {"Volumes": {"/data": {}, "/tmp": {}}, "Entrypoint": ["/evil"], "User": "root"}}

PLAN = DockerPlan("name", ("mix", "test"), "/work", (), 2.0, 2 << 30)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("code", "tmp"):
        (tmp_path / "w" / name).mkdir(parents=True)
    return Workspace("w", tmp_path / "w/code", tmp_path / "w/tmp", "seed")


def config_of(workspace: Workspace, **fields: Any) -> dict[str, Any]:
    mount = Mount(Place("code", ()), "/work", True)
    plan = PLAN._replace(mounts=(mount,))._replace(**fields)
    prepared = mounts.prepare(plan.mounts, workspace, "call", 1000, ())
    return template(plan, IMAGE, prepared, cores=2)


@pytest.mark.box
def test_the_template_leaves_a_container_nothing(workspace: Workspace) -> None:
    config = config_of(workspace)
    host = config["HostConfig"]
    assert (config["Image"], config["Entrypoint"], config["Cmd"]) == ("sha256:abc", ["mix"], ["test"])
    assert (config["User"], config["NetworkDisabled"], host["NetworkMode"]) == ("65534:65534", True, "none")
    assert (host["ReadonlyRootfs"], host["Privileged"], host["CapDrop"]) == (True, False, ["ALL"])
    assert (host["SecurityOpt"], host["PidsLimit"]) == (["no-new-privileges"], 256)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (2 << 30, 2 << 30, 2_000_000_000)
    assert host["LogConfig"] == {"Type": "none"}
    assert set(host["Tmpfs"]) == {"/tmp", "/data"}
    assert not {"Binds", "Devices", "CapAdd", "VolumesFrom", "PidMode", "UsernsMode", "Links"} & set(host)
    assert "Env" not in config


def test_a_container_is_the_owner_of_what_it_works_on(tmp_path: Path) -> None:
    owned = mounts.Mounts([], tmp_path, (1234, 1235))
    assert user_of(owned, {}) == "1234:1235"
    assert user_of(owned._replace(owner=None), {}) == "65534:65534"
    # There the only user that a container can share with the machine is its root, an ordinary user outside.
    assert user_of(owned, {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"]}) == "0:0"


@pytest.mark.box
def test_mounts_are_objects_never_strings(workspace: Workspace) -> None:
    (mount,) = config_of(workspace)["HostConfig"]["Mounts"]
    assert mount == {
        "Type": "bind",
        "Source": str(workspace.code),
        "Target": "/work",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
    }


@pytest.mark.box
def test_a_colon_in_a_path_changes_nothing(workspace: Workspace) -> None:
    (workspace.code / "a:b").mkdir()
    mount = Mount(Place("code", ("a:b",)), "/work:rw", True)
    (found,) = config_of(workspace, mounts=(mount,))["HostConfig"]["Mounts"]
    assert (found["Target"], found["ReadOnly"]) == ("/work:rw", True)


@pytest.mark.box
@pytest.mark.parametrize(("cpus", "nano"), [(0.5, 500_000_000), (64.0, 2_000_000_000), (0.001, 10_000_000)])
def test_cpus_are_what_the_engine_has_at_most(workspace: Workspace, cpus: float, nano: int) -> None:
    assert config_of(workspace, cpus=cpus)["HostConfig"]["NanoCpus"] == nano


@pytest.mark.box
def test_an_admin_may_leave_limits_out_but_not_the_rest(workspace: Workspace) -> None:
    host = config_of(workspace, cpus=None, mem_bytes=None)["HostConfig"]
    assert not {"Memory", "MemorySwap", "NanoCpus"} & set(host)
    assert host["PidsLimit"] == 256


def test_copies_that_outlived_their_deadline_are_swept(workspace: Workspace) -> None:
    copies = mounts.copies_of(workspace)
    for name in ("999-a", "1001-b", "junk"):
        (copies / name / "deep").mkdir(parents=True)
    assert mounts.sweep(workspace.tmp.parents[1], 1000) == 2
    assert os.listdir(copies) == ["1001-b"]


async def test_a_call_that_is_cut_while_its_copies_are_made_leaves_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(*given: Any) -> mounts.Mounts:
        begun.set()
        assert go_on.wait(10)
        copies = mounts.copies_of(workspace) / "1000-a"
        copies.mkdir(parents=True)
        return mounts.Mounts([], copies, None)

    monkeypatch.setattr(mounts, "prepare", slow)
    deadline_s = asyncio.get_running_loop().time() + 10
    ticket = Ticket("call", "tester", workspace, deadline_s)
    call = asyncio.create_task(Docker()._prepare(PLAN, ticket, 1000, ()))
    assert await asyncio.to_thread(begun.wait, 10)
    call.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not mounts.copies_of(workspace).exists()


def layers(archive: io.BytesIO) -> tuple[dict[str, Any], dict[str, tarfile.TarInfo]]:
    with tarfile.open(fileobj=archive) as outer:
        (manifest,) = json.loads(outer.extractfile("manifest.json").read())
        config = json.loads(outer.extractfile(manifest["Config"]).read())
        layer = io.BytesIO(outer.extractfile(manifest["Layers"][0]).read())
    with tarfile.open(fileobj=layer) as inner:
        return {"manifest": manifest, "config": config}, {member.name: member for member in inner}


@pytest.mark.box
def test_an_image_of_a_folder_holds_its_files_and_no_powers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/tool").write_text("x")
    (root / "bin/tool").chmod(0o4755)
    (root / "bin/link").symlink_to("tool")
    (root / "etc").mkdir()
    (root / "etc/conf").write_text("y")
    os.mkfifo(root / "etc/pipe")
    archive = io.BytesIO()
    write_archive(archive, "my/tools:1", rootfs.of_folder(root))
    told, members = layers(archive)
    assert told["manifest"]["RepoTags"] == ["my/tools:1"]
    assert list(members) == ["bin", "bin/link", "bin/tool", "etc", "etc/conf"]
    assert members["bin/tool"].mode == 0o755
    assert members["bin/link"].linkname == "tool"
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, 0)}


def test_the_same_entries_make_the_same_bytes_in_any_order() -> None:
    entries = (Entry("b/c", text=b"1"), Entry("a", text=b"2"), Entry("l", link="a"))
    one, other = io.BytesIO(), io.BytesIO()
    write_archive(one, "x:1", RootFs(entries))
    write_archive(other, "x:1", RootFs(entries[::-1]))
    assert one.getvalue() == other.getvalue()


def test_an_image_of_python_holds_what_a_package_needs() -> None:
    paths = {entry.path for entry in rootfs.of_python(["pytest"]).entries}
    assert {"usr/local/bin/python3", "usr/local/bin/pytest", "opt/packages/pluggy/__init__.py", "tmp"} <= paths
    assert any(path.endswith("/os.py") for path in paths)
    assert any("libc.so" in path for path in paths)
    assert not any("site-packages" in path or "__pycache__" in path for path in paths)
    with pytest.raises(Rejected) as caught:
        rootfs.of_python(["no-such-package"])
    assert caught.value.code == "missing_dependency"


@pytest.mark.parametrize("name", ["", "Upper", "a b", "../x", "x:", "x" * 201, "a@sha256:0", "-x"])
async def test_a_name_that_is_none_builds_nothing(name: str) -> None:
    with pytest.raises(Rejected) as caught:
        await build(name, busybox=True)
    assert caught.value.code == "bad_request"


async def test_an_image_comes_from_exactly_one_source(tmp_path: Path) -> None:
    for sources in ({}, {"busybox": True, "python": True}, {"folder": tmp_path, "busybox": True}):
        with pytest.raises(Rejected) as caught:
            await build("x:1", **sources)
        assert caught.value.code == "bad_request"


@pytest.mark.box
def test_the_folder_of_copies_goes_with_the_last_of_them(workspace: Workspace) -> None:
    (workspace.code / "sub").mkdir()
    mount = Mount(Place("code", ("sub",)), "/work", True)
    first, second = (mounts.prepare((mount,), workspace, name, 1000, ()) for name in ("one", "two"))
    mounts.discard(first.copies)
    assert second.copies.is_dir()
    mounts.discard(second.copies)
    assert not mounts.copies_of(workspace).exists()


@pytest.mark.parametrize("trouble", ["500", "silence"])
async def test_an_engine_in_trouble_hinders_nobody_who_buries_or_reaps(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.policy_gateway.tools.docker.LIST_S", 0.1)
    asked: list[bytes] = []
    connected: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)
        while line := await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            asked.append(line)
            status, body = b"200 OK", b'{"Version":"29","ApiVersion":"1.50"}'
            if b"/containers/json" in line:
                if trouble == "silence":
                    continue
                status, body = b"500 Internal Server Error", b'{"message":"the store is corrupt"}'
            head = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            writer.write(b"HTTP/1.1 " + status + b"\r\n" + head + body)
        writer.close()
        await writer.wait_closed()
        connected.discard(writer)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as engine:
        docker = Docker(f"tcp://127.0.0.1:{engine.sockets[0].getsockname()[1]}")
        await docker.bury("call-1")
        assert await docker.reap() == 0
        await eventually(lambda: not connected)
    assert len([line for line in asked if b"/containers/json" in line]) == 2
