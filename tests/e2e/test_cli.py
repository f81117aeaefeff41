"""The commands as people type them, against a whole running instance with the mock model."""

import json
import os
import signal

import nats
import pytest

from contracts.limits import REQUEST_BYTES_MAX
from contracts.streams import COMMANDS
from tests.e2e.instance import Instance

pytestmark = pytest.mark.timeout(120)
MUTATIONS = ("mutations_proposed", "mutations_applied")
NO_EVOLUTION = f"note: evolution is not part of this version; {' and '.join(MUTATIONS)} stay empty\n"
SEED_LINE = "completed 4  failed 0  mutations_applied []  tokens "


@pytest.fixture(scope="module")
def htdag(tmp_path_factory):
    instance = Instance(tmp_path_factory.mktemp("cli") / "home")
    instance.up("--model", "mock")
    yield instance
    instance("down")
    assert instance.refusals() == []


@pytest.fixture
def plan(tmp_path):
    def write(content, name="tasks.json") -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


NOOPS = [
    {"id": "a", "node": {"type": "noop", "result": {"n": 1}}},
    {"id": "b", "node": {"type": "lua", "src": "return {n = 2}"}, "depends_on": ["a"]},
]
BROKEN = [
    {"id": "a", "max_attempts": 1, "node": {"type": "lua", "src": "error('no')"}},
    {"id": "b", "depends_on": ["a"]},
]


def refused(said, code: str, exit_code: int) -> None:
    """One clear line and a hint, nothing else, and the exit code of the catalogue."""
    assert said.code == exit_code, said
    assert said.err.splitlines()[-2].startswith(f"error: {code}: "), said.err
    assert said.err.splitlines()[-1].startswith("hint: ")
    assert "Traceback" not in said.err


@pytest.mark.parametrize("also", ["", "--json"])
def test_a_command_whose_reader_has_enough_ends_at_once(htdag, plan, also):
    late = {"type": "llm", "model": "mock:delay=50s", "prompt": "x"}
    slow = plan([{"id": "a", "node": {"type": "noop"}}, {"id": "b", "depends_on": ["a"], "node": late}])
    run_id = f"head-{len(also)}"
    streaming = (
        ["run", slow, "--run-id", run_id, "--follow"],
        ["runs", "watch", run_id],
        ["bus", "tail", "htdag.v1.evt.>"],
    )
    for words in streaming:
        with htdag.start(*words, *filter(None, [also])) as process:
            if words[0] != "bus":
                assert process.stdout.readline()
            process.stdout.close()
            said = process.stderr.read()
            assert process.wait(timeout=20) == 141, words
        assert "Traceback" not in said
        assert "Error" not in said
    htdag("runs", "cancel", run_id)


def test_a_goal_becomes_four_phases_and_completes(htdag):
    said = htdag("run", "Build user authentication with JWT", "--run-id", "auth-build-1", "--stream", "--follow")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert "task spec in_progress" in lines
    assert any(line.startswith("spec> ") for line in lines), "no tokens were shown"
    assert lines[-1].startswith(SEED_LINE)
    assert htdag("tasks", "graph", "--run", "auth-build-1", "--json").document == dict.fromkeys(
        ("spec", "arch", "impl", "test"), "completed"
    )
    replayed = htdag("runs", "replay", "auth-build-1")
    assert replayed.code == 0
    assert replayed.out.endswith("events, 0 LLM calls, state digest equal\n")
    audit = htdag("runs", "audit", "auth-build-1", "--json").document
    assert (audit["duplicates"], audit["tasks_completed_twice"], audit["open_waits"]) == (0, 0, 0)
    assert audit["llm_calls_paid"] == audit["llm_calls_distinct"] > 0


def test_the_same_run_id_attaches_and_pays_nothing(htdag):
    words = ("run", "Attach to me", "--run-id", "again-1", "--json")
    first, second = htdag(*words).document, htdag(*words).document
    assert {"completed", "failed", "results", *MUTATIONS, "tokens", "cost_usd_micros"} <= set(first)
    assert second["results"] == first["results"]
    assert htdag("runs", "audit", "again-1", "--json").document["llm_calls_paid"] == first["llm_calls"]


def test_plan_only_shows_the_phases_and_runs_nothing(htdag):
    planned = htdag("run", "Build user authentication with JWT", "--plan-only", "--json").document
    assert [task["estimated_complexity"] for task in planned["tasks"]] == [2.0, 2.5, 4.0, 1.5]
    text = htdag("run", "Build user authentication with JWT", "--plan-only").out
    assert text.startswith("plan: 4 tasks (depth 1)  strategy standard@1\n")


def test_with_json_and_follow_each_event_is_a_line(htdag, plan):
    said = htdag("run", plan(NOOPS), "--json", "--follow")
    *events, result = said.lines
    assert events[0]["event"]["type"] == "run.created.v1"
    assert events[-1]["event"]["type"] == "run.ended.v1"
    assert result["results"] == {"a": {"n": 1}, "b": {"n": 2}}


def test_a_file_of_tasks_is_run_listed_shown_and_watched(htdag, plan):
    said = htdag("run", plan(NOOPS), "--run-id", "file-1")
    assert (said.code, said.out.splitlines()[-1][:21]) == (0, "completed 2  failed 0")
    assert htdag("runs", "list", "--json").document[0]["run_id"]
    assert any(line.split()[:2] == ["file-1", "completed"] for line in htdag("runs", "list").out.splitlines())
    shown = htdag("runs", "show", "file-1").out
    assert "✔ b  completed" in shown
    assert "← a" in shown
    assert htdag("runs", "graph", "file-1", "--json").document == {"a": "completed", "b": "completed"}
    assert htdag("runs", "watch", "file-1").out.splitlines()[-1].startswith("completed 2")
    assert htdag("runs", "result", "file-1", "--task", "b", "--json").document == {"n": 2}
    assert htdag("runs", "waits", "file-1").out == "nothing waits\n"


def test_wishes_without_effect_are_named_and_the_run_goes_on(htdag, plan):
    file = plan([{**NOOPS[0], "budget_tokens": 5}])
    said = htdag("run", file, "--evolve", "--json")
    assert (said.code, [said.document[name] for name in MUTATIONS], said.err) == (0, [[], []], NO_EVOLUTION)
    assert htdag("run", "A goal", "--evolve", "--plan-only", "--json").err == NO_EVOLUTION
    assert htdag("tasks", "enqueue", file).err == ""
    said = htdag("epics", "create", "Costly", "--budget-usd", "5")
    assert (said.code, said.err) == (0, "")


def test_tasks_come_from_standard_input(htdag):
    said = htdag("run", "-", "--json", stdin='[{"id":"only","node":{"type":"noop"}}]')
    assert said.document["results"] == {"only": None}


def test_a_finished_run_is_not_told_to_be_resumed(htdag, plan):
    assert htdag("run", plan(NOOPS), "--run-id", "over-1").code == 0
    again = htdag("runs", "resume", "over-1")
    refused(again, "already_finished", 5)
    assert "start a new run" in again.err


def test_a_failing_run_exits_1_and_says_why(htdag, plan):
    said = htdag("run", plan(BROKEN), "--run-id", "bad-1")
    assert said.code == 1
    assert "task b blocked  blocked by a" in said.out
    assert "task a failed" in said.out
    why = htdag("tasks", "result", "a", "--run", "bad-1")
    refused(why, "not_completed", 5)
    assert "htdag runs resume bad-1" in why.err
    assert htdag("runs", "resume", "bad-1").code == 0
    assert htdag("runs", "watch", "bad-1").code == 1


def test_a_run_can_be_left_alone_and_cancelled(htdag, plan):
    slow = [{"id": "a", "node": {"type": "llm", "model": "mock:delay=30s", "prompt": "x"}, "timeout_ms": 60000}]
    accepted = htdag("run", plan(slow), "--run-id", "slow-1", "--no-follow", "--json")
    assert accepted.document["run_id"] == "slow-1"
    waits = htdag("doctor", "waits", "--json").document
    assert all(wait["deadline_at_ms"] > 0 for wait in waits if wait["run_id"] == "slow-1")
    assert htdag("runs", "cancel", "slow-1", "--reason", "enough").code == 0
    assert htdag("runs", "watch", "slow-1").out.splitlines()[-2] == "run slow-1 cancelled  cancelled: enough"


def test_ctrl_c_leaves_the_run_and_exits_130(htdag, plan):
    slow = [{"id": "a", "node": {"type": "llm", "model": "mock:delay=30s", "prompt": "x"}}]
    with htdag.start("run", plan(slow), "--run-id", "slow-2") as process:
        assert process.stdout.readline().startswith("run slow-2 running")
        os.kill(process.pid, signal.SIGINT)
        try:
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err == "the run goes on by itself: htdag runs watch slow-2, or htdag runs cancel slow-2\n"
    assert htdag("runs", "cancel", "slow-2").code == 0


@pytest.mark.parametrize(
    ("content", "code", "exit_code"),
    [
        ([{"id": "a", "depends_on": ["b"]}, {"id": "b", "depends_on": ["a"]}], "cycle", 2),
        ([{"id": "a", "depends_on": ["z"]}], "unknown_dependency", 2),
        ([{"id": "a"}, {"id": "a"}], "duplicate_id", 5),
        ([{"id": "a.b"}], "bad_id", 2),
        ([{"id": "a", "role": "chef"}], "unknown_role", 2),
        ([{"id": 5}], "bad_request", 2),
        ([], "bad_request", 2),
        ([{"id": "a", "estimated_complexity": -1}], "bad_request", 2),
        ([{"id": "a", "estimated_complexity": 1e9}], "bad_request", 2),
        ('[{"id": "a",]', "bad_json", 2),
        (" " * (REQUEST_BYTES_MAX + 1), "too_large", 2),
    ],
)
@pytest.mark.parametrize("command", [("run",), ("tasks", "enqueue")], ids=lambda words: words[0])
def test_a_bad_graph_is_refused_whole(htdag, plan, command, content, code, exit_code):
    refused(htdag(*command, plan(content)), code, exit_code)


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (("run", ""), "empty_goal", 2),
        (("run", "x" * 100_000), "too_large", 2),
        (("run", "x", "--run-id", "a b"), "bad_id", 2),
        (("run", "nowhere.json"), "not_found", 3),
        (("run", "x", "--complexity", "1000"), "bad_request", 2),
        (("run", "x", "--complexity", "nan"), "bad_request", 2),
        (("runs", "show", "nobody"), "run_not_found", 3),
        (("runs", "watch", "nobody"), "run_not_found", 3),
        (("runs", "cancel", "nobody"), "run_not_found", 3),
        (("runs", "replay", "nobody"), "run_not_found", 3),
        (("epics", "show", "nobody"), "epic_not_found", 3),
        (("strategies", "show", "nobody"), "strategy_not_found", 3),
        (("tasks", "status", "nobody", "--run", "nobody"), "task_not_found", 3),
        (("llm", "ask", "nosuch", "hi"), "unknown_model", 3),
        (("llm", "ask", "a b", "hi"), "bad_id", 2),
        (("llm", "replay", "nobody"), "not_found", 3),
        (("llm", "reset", "nosuch"), "unknown_model", 3),
        (("bus", "history", "htdag.v1.evt.executor.run.nobody"), "not_found", 3),
        (("bus", "history", "htdag.>", "--limit", "0"), "bad_request", 2),
        (("bus", "tail", ""), "bad_request", 2),
        (("bus", "tail", "a b"), "bad_request", 2),
        (("bus", "tail", "a..b"), "bad_request", 2),
        (("bus", "tail", "a.>.b"), "bad_request", 2),
        (("llm", "tail", "nobody.nothing"), "not_found", 3),
        (("bus", "dlq", "show", "77"), "not_found", 3),
        (("models", "pull", "nosuch"), "not_found", 3),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_every_wrong_word_has_its_code(htdag, words, code, exit_code):
    refused(htdag(*words), code, exit_code)


def test_an_unknown_model_fails_the_run_with_its_code(htdag):
    said = htdag("run", "Do it", "--complexity", "1", "--model", "nosuch")
    assert said.code == 1
    assert "unknown_model: no such model: nosuch (`htdag llm models` lists them)" in said.out


def test_tasks_are_enqueued_once_and_looked_at(htdag, plan):
    path = plan(NOOPS)
    refused(htdag("tasks", "enqueue", path, "--epic", "cli"), "epic_not_found", 3)
    assert htdag("epics", "create", "CLI", "--id", "cli").code == 0
    assert htdag("tasks", "enqueue", path, "--epic", "cli").out == "a\nb\n"
    assert htdag("tasks", "enqueue", path, "--epic", "cli").out == "a\nb\n"
    assert htdag("tasks", "result", "a", "--epic", "cli", "--json").document == {"n": 1}
    refused(htdag("tasks", "result", "zz", "--epic", "cli"), "task_not_found", 3)


def test_epics_are_created_and_shown(htdag):
    assert htdag("epics", "create", "Auth", "--id", "auth", "--budget-usd", "0.05").out == "auth\n"
    assert htdag("epics", "show", "auth", "--json").document["budget_usd_micros"] == 50_000
    assert "auth" in htdag("epics", "list").out


def test_strategies_change_without_a_restart(htdag, tmp_path):
    script = tmp_path / "decomposition.lua"
    script.write_text("return {subtasks = {}, strategy = 'atomic', reasoning = 'hotfix'}")
    put = htdag("strategies", "put", str(script), "--name", "quick", "--pattern", "hotfix", "--priority", "10")
    assert put.out == "quick@1 active\n"
    tried = htdag("strategies", "try", "quick", "decompose", '{"description":"x","estimated_complexity":9}', "--json")
    assert tried.document["value"]["reasoning"] == "hotfix"
    planned = htdag("run", "a hotfix please", "--plan-only", "--json").document
    assert (planned["strategy"], len(planned["tasks"])) == ("quick@1", 1)
    script.write_text("return {subtasks = {")
    refused(htdag("strategies", "put", str(script), "--name", "quick"), "lua_syntax", 2)
    script.write_text("os.execute('id')")
    refused(htdag("strategies", "put", str(script), "--name", "quick"), "lua_restricted", 4)
    assert htdag("strategies", "rollback", "quick").out == "quick@0 not active\n"
    assert "scripts" in htdag("strategies", "show", "standard", "--json").document["body"]


def test_a_model_is_asked_and_its_answer_is_kept(htdag):
    words = ("llm", "ask", "mock", "hello", "--corr-id", "cli-1")
    streamed = htdag(*words, "--stream")
    assert streamed.code == 0
    again = htdag(*words, "--json").document
    assert streamed.out.strip() == again["output"].strip()
    replayed = htdag("llm", "replay", "cli-1", "--json").document
    assert (replayed["output"], replayed["paid"]) == (again["output"], False)
    tokens = htdag("llm", "tail", "ask.cli-1", "--from-seq", "2", "--json").lines
    assert [token["seq"] for token in tokens] == list(range(2, len(tokens) + 2))
    assert tokens[-1]["done"]
    assert "mock" in htdag("llm", "models").out
    assert htdag("llm", "workers", "--json").document[0]["status"] == "up"
    assert htdag("llm", "reset", "mock", "--json").document["breaker"] == "closed"


def test_the_bus_is_laid_open(htdag, plan):
    htdag("run", plan(NOOPS), "--run-id", "bus-1")
    streams = {stream["name"]: stream for stream in htdag("bus", "ls", "--json").document}
    assert streams["HTDAG_EVT_EXECUTOR"]["messages"] > 0
    subjects = {one["subject"]: one for one in htdag("bus", "ls", "--subjects", "--json").document}
    assert subjects["htdag.v1.evt.executor.run.{run_id}"]["stream"] == "HTDAG_EVT_EXECUTOR"
    assert {"llm.req.{model_id}", "htdag.v1.planner.goal.submit"} <= set(subjects)
    same = htdag("bus", "apply", "--diff")
    assert (same.code, same.out.endswith("are as they should be\n")) == (0, True)
    history = htdag("bus", "history", "htdag.v1.evt.executor.run.bus-1").out
    assert "run.created.v1" in history
    assert "run.ended.v1" in history
    assert "  by operator:" in history.splitlines()[0]
    tail = htdag("bus", "tail", "htdag.v1.evt.executor.run.bus-1", "--all", "--count", "1", "--json")
    assert tail.lines[0]["subject"] == "htdag.v1.evt.executor.run.bus-1"
    assert htdag("bus", "dlq", "ls").out == "no dead letters\n"


def test_the_doctor_finds_nothing_wrong(htdag):
    said = htdag("doctor", "--json")
    failed = [check for check in said.document["checks"] if check["status"] == "fail"]
    assert (said.code, failed) == (0, [])
    assert {
        "broker",
        "jetstream",
        "streams",
        "planner",
        "executor",
        "policy-gateway",
        "llm-worker",
        "sandbox",
        "waits",
    } <= {check["name"] for check in said.document["checks"]}


def test_the_configuration_says_where_each_value_is_from(htdag):
    rows = {f"{row['section']}.{row['key']}": row for row in htdag("config", "show", "--json").document}
    assert rows["core.home"]["origin"] == "env HTDAG_HOME"
    assert rows["llm_worker.heartbeat_s"]["origin"] == "default"


# Without an instance ----------------------------------------------------------------------------------------------


def test_without_a_broker_every_command_says_so_in_time(tmp_path):
    nobody = Instance(tmp_path, NATS_URL="nats://127.0.0.1:1")
    refused(nobody("runs", "list", timeout_s=5), "nats_unavailable", 69)
    refused(nobody("run", "x", timeout_s=5), "nats_unavailable", 69)
    doctor = nobody("doctor", "--json", timeout_s=20)
    assert doctor.code == 1
    assert {"name": "broker", "status": "fail"}.items() <= doctor.document["checks"][-1].items()


@pytest.mark.parametrize("words", [("runs", "list"), ("serve", "planner")], ids=lambda words: words[0])
def test_a_url_that_is_none_is_wrong_configuration(tmp_path, words):
    lost = Instance(tmp_path, NATS_URL="nats://256.1.1.1:zz", HTDAG_CORE__HTTP_PORT="0")
    said = lost(*words, timeout_s=20)
    assert said.code == 78, said
    assert "NATS_URL is no broker's URL" in said.err


def test_without_services_the_missing_one_is_named(tmp_path, nats_server):
    alone = Instance(tmp_path, NATS_URL=nats_server.url)
    refused(alone("runs", "list", timeout_s=10), "service_unavailable", 69)
    refused(alone("llm", "ask", "mock", "hi", timeout_s=10), "llm_unavailable", 69)
    assert "executor does not answer" in alone("runs", "list").err


def test_a_broker_without_jetstream_is_named(tmp_path, start_nats_server):
    plain = Instance(tmp_path, NATS_URL=start_nats_server(jetstream=False).url)
    refused(plain("runs", "list", timeout_s=10), "jetstream_unavailable", 69)


def test_wrong_credentials_are_named(tmp_path, start_nats_server):
    users = 'authorization { users: [ { user: "a", password: "b" } ] }'
    server = start_nats_server(extra=users)
    port = server.url.rpartition(":")[2]
    stranger = Instance(tmp_path, NATS_URL=f"nats://a:wrong@127.0.0.1:{port}")
    said = stranger("runs", "list", timeout_s=10)
    refused(said, "nats_denied", 78)
    assert "wrong" not in said.err


async def test_a_stream_that_cannot_be_changed_is_named_and_shown(tmp_path, nats_server):
    client = await nats.connect(nats_server.url)
    stream = {"name": COMMANDS, "subjects": ["htdag.v1.in.>"], "retention": "workqueue", "storage": "file"}
    await client.request(f"$JS.API.STREAM.CREATE.{COMMANDS}", json.dumps(stream).encode())
    await client.close()
    old = Instance(tmp_path / "home", NATS_URL=nats_server.url)
    diff = old("bus", "apply", "--diff")
    assert (diff.code, '  retention: "workqueue" -> "limits"' in diff.out.splitlines()) == (5, True)
    said = old("bus", "apply")
    refused(said, "stream_differs", 5)
    assert COMMANDS in said.err
    service = old("serve", "planner", timeout_s=30)
    assert service.code == 5
    assert "stream_differs" in service.out + service.err
