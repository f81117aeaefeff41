"""The embedded instance: up, ps, down; killed and started again; nothing is ever left running."""

import asyncio
import json
import os
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import nats
import pytest

from tests.e2e.instance import Instance, runs
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def instance(tmp_path):
    made = Instance(tmp_path / "home")
    yield made
    if (made.home / "instance.json").exists():
        made("down")
    assert left_behind(made.home) == []
    assert made.refusals() == []


def left_behind(home: Path) -> list[int]:
    """Processes that live in this home, whoever started them."""
    mark, found = f"HTDAG_HOME={home}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended, or it is another user's
        if mark in variables and runs(int(path.parent.name)):
            found.append(int(path.parent.name))
    return found


def gone(pids: list[int]) -> bool:
    return not any(runs(pid) for pid in pids)


async def test_up_detached_is_ready_when_it_returns_and_down_leaves_nothing(instance):
    document = instance.up("--only", "planner,executor,llm-worker", "--model", "mock")
    assert document["home"] == str(instance.home)
    assert set(document["services"]) == {"planner", "executor", "llm-worker"}
    client = await nats.connect(document["operator_url"])
    try:
        pong = await client.request("$SRV.PING.executor", b"", timeout=10)
        assert json.loads(pong.data)["name"] == "executor"
    finally:
        await client.close()
    for service in document["services"].values():
        assert runs(service["pid"])
        assert service["http"].startswith("http://127.0.0.1:")
    pids = instance.pids()
    assert set(pids) <= set(left_behind(instance.home))
    shown = instance("ps")
    assert (shown.code, shown.out.count("  ready  ")) == (0, 4)
    password = urlsplit(document["operator_url"]).password
    assert password
    for pid in pids:
        assert password not in Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    assert instance("up", "-d", "--only", "planner,executor,llm-worker").code == 5
    assert instance("down").code == 0
    assert gone(pids)
    assert instance("down").code == 3


async def test_what_is_killed_comes_back_and_all_killed_can_be_started_again(instance):
    plan = Path(instance.home.parent / "one.json")
    plan.write_text('[{"id":"a","node":{"type":"noop","result":1}}]')
    document = instance.up("--only", "planner,executor")
    assert instance("run", str(plan), "--run-id", "r1").code == 0
    os.kill(document["services"]["executor"]["pid"], signal.SIGKILL)

    def restarted() -> bool:
        said = instance("ps", "--json")
        executor = said.document["services"]["executor"]
        return (
            said.code == 0 and executor["pid"] != document["services"]["executor"]["pid"] and executor["restarts"] == 1
        )

    await eventually(restarted, timeout_s=20, interval_s=0.2)
    pids = instance.pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    await eventually(lambda: gone(pids))
    assert instance("ps").code == 3
    instance.up("--only", "planner,executor")
    assert instance("runs", "result", "r1", "--json").document["results"] == {"a": 1}
    assert "mutations_proposed []  mutations_applied []" in instance("runs", "result", "r1").out


async def test_when_the_supervisor_alone_is_killed_up_ends_the_orphans_first(instance):
    first = instance.up("--only", "planner")
    os.kill(first["services"]["planner"]["pid"], signal.SIGKILL)  # its successor stands in no record
    await eventually(lambda: instance("ps").code == 0, timeout_s=20, interval_s=0.2)
    supervisor, *orphans = instance.pids()
    os.kill(supervisor, signal.SIGKILL)
    await eventually(lambda: not runs(supervisor))
    assert all(runs(pid) for pid in orphans)
    instance.up("--only", "planner")
    assert gone(orphans)


async def test_in_the_foreground_ctrl_c_drains(instance):
    process = instance.start("up", "--port", "0", "--only", "planner,executor", "--json")
    document = json.loads(await asyncio.to_thread(process.stdout.readline))
    pids = [service["pid"] for service in document["services"].values()] + [document["broker"]["pid"]]
    assert all(runs(pid) for pid in pids)
    assert instance("up").code == 5
    os.killpg(process.pid, signal.SIGINT)
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert (process.returncode, out) == (0, "")
    assert err.splitlines()[-1] == "stopped"
    assert gone(pids)
    assert not (instance.home / "instance.json").exists()


async def test_when_up_itself_is_killed_nothing_is_left(instance):
    process = instance.start("up", "--port", "0", "--only", "planner", "--json")
    document = json.loads(await asyncio.to_thread(process.stdout.readline))
    pids = [document["services"]["planner"]["pid"], document["broker"]["pid"]]
    process.kill()
    await asyncio.to_thread(process.communicate, timeout=10)
    await eventually(lambda: gone(pids), timeout_s=40)
    instance.up("--only", "planner")


async def test_down_ends_a_foreground_instance(instance):
    process = instance.start("up", "--port", "0", "--only", "planner", "--json")
    document = json.loads(await asyncio.to_thread(process.stdout.readline))
    assert instance("down").code == 0
    await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0
    assert gone([document["services"]["planner"]["pid"], document["broker"]["pid"]])


def test_two_instances_live_side_by_side(tmp_path):
    first, second = Instance(tmp_path / "a"), Instance(tmp_path / "b")
    try:
        one, two = first.up("--only", "planner"), second.up("--only", "planner")
        assert one["operator_url"] != two["operator_url"]
        assert first("epics", "create", "Auth", "--id", "auth").code == 0
        assert second("epics", "show", "auth").code == 3
    finally:
        first("down")
        second("down")


def test_a_taken_port_is_said_at_once(instance):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for words in (["up"], ["up", "-d"]):
            said = instance(*words, "--port", str(port), timeout_s=10)
            assert (said.code, said.err.splitlines()[0]) == (
                78,
                f"error: port_in_use: port {port} is taken (port={port})",
            )


def test_a_service_that_cannot_start_is_named_and_nothing_stays(tmp_path):
    # An address for documentation: nobody can open a port there.
    broken = Instance(tmp_path / "h", HTDAG_CORE__HTTP_HOST="192.0.2.1")
    said = broken("up", "-d", "--json", "--port", "0", "--only", "planner", "--ready-timeout", "3")
    assert said.code == 69
    assert "planner" in said.document["error"]["services"]
    assert broken("ps").code == 3


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTDAG_CORE__DRAIN_S", "abc", "core.drain_s"),
        ("HTDAG_CORE__FOO", "1", "core.foo"),
        ("HTDAG_BROKER__HOST", "192.0.2.1", "HTDAG_BROKER__HOST is unknown"),
        ("HTDAG_EXECUTOR__LUA_CHILDREN", "x", "executor.lua_children"),
        ("HTDAG_LLM_WORKER__FOO", "1", "llm_worker.foo"),
        ("HTDAG_LLM_WORKER__ALIASES", '{"a": "nope"}', "nope"),
    ],
)
@pytest.mark.parametrize("words", [("up",), ("up", "-d")], ids=" ".join)
def test_wrong_configuration_is_named_before_anything_is_started(tmp_path, words, variable, value, said):
    wrong = Instance(tmp_path / "h", **{variable: value})
    answer = wrong(*words, "--port", "0", timeout_s=10)
    assert (answer.code, answer.err.startswith("error: bad_config: ")) == (78, True), answer
    assert said in answer.err
    assert not (tmp_path / "h" / "logs").exists()


def test_a_model_that_is_none_and_a_bad_file_are_refused_as_well(tmp_path):
    instance = Instance(tmp_path / "h")
    answer = instance("up", "-d", "--port", "0", "--model", "nope", timeout_s=10)
    assert (answer.code, "nope" in answer.err) == (78, True)
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "htdag.toml").write_text("[core]\nlog_level = 7\n")
    answer = instance("up", "-d", "--port", "0", timeout_s=10)
    assert (answer.code, "core.log_level" in answer.err) == (78, True)


def test_the_doctor_asks_the_running_worker_what_it_can_call(tmp_path):
    started = Instance(tmp_path / "h", HTDAG_LOCAL_MODEL=str(tmp_path / "nowhere.gguf"))
    started.up("--only", "llm-worker")
    try:
        # Another shell, in which everything is well.
        said = Instance(tmp_path / "h")("doctor", "--mend", "--json")
        checks = {check["name"]: check for check in said.document["checks"]}
        assert (said.code, checks["models"]["status"]) == (1, "fail")
        assert "smollm2 cannot answer" in checks["models"]["message"]
        assert "nothing to mend" in said.err
    finally:
        assert started("down").code == 0


def test_nats_url_means_start_no_broker(tmp_path, nats_server):
    own = Instance(tmp_path / "h", NATS_URL=nats_server.url)
    try:
        document = own.up("--only", "planner")
        assert "broker" not in document
        assert document["operator_url"] == nats_server.url
        assert own("strategies", "list", "--json").document[0]["name"] == "standard"
    finally:
        own("down")
    assert own("strategies", "list").code == 69


def test_a_broker_that_cannot_be_used_is_refused_at_once(tmp_path, start_nats_server):
    users = 'authorization { users: [ { user: "a", password: "b" } ] }'
    for url, code, exit_code in (
        (start_nats_server(jetstream=False).url, "jetstream_unavailable", 69),
        (start_nats_server(extra=users).url, "nats_denied", 78),
        ("nats://127.0.0.1:1", "nats_unavailable", 69),
    ):
        said = Instance(tmp_path / "h", NATS_URL=url)("up", timeout_s=10)
        assert (said.code, said.err.partition(": ")[2].partition(":")[0]) == (exit_code, code)
