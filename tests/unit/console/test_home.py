"""The home of an instance: private files, one `up` at a time, processes by identity."""

import os
import stat
import subprocess

import pytest

from contracts.errors import Rejected
from contracts.permissions import USERS
from services.console.home import Home, InstanceRecord, ServiceRecord
from services.console.processes import Process, alive, identify
from services.console.supervision.broker import claim_port, free_port, prepare, public_keys, server_conf
from services.console.supervision.plan import UpPlan, chosen_services, environment
from services.console.supervision.status import document, state_of


@pytest.fixture
def home(tmp_path) -> Home:
    made = Home(tmp_path / "h")
    made.prepare()
    return made


def record(home: Home, supervisor: Process) -> InstanceRecord:
    me = ServiceRecord(identify(os.getpid()), "http://127.0.0.1:1", "ready")
    return InstanceRecord(
        str(home.root), "background", supervisor, "nats://operator:s3cret@127.0.0.1:1", me, {"planner": me}
    )


def test_secrets_are_made_once_and_private(home):
    secret = home.secret("operator")
    assert len(secret) == 48
    assert home.secret("operator") == secret
    assert stat.S_IMODE((home.keys / "operator").stat().st_mode) == 0o600


def test_the_record_is_private_and_comes_back(home):
    written = record(home, identify(os.getpid()))
    home.write_record(written)
    assert home.record() == written
    assert stat.S_IMODE(home.instance_file.stat().st_mode) == 0o600


def test_a_recycled_pid_is_not_ours(home):
    mine = identify(os.getpid())
    assert alive(mine)
    assert not alive(Process(mine.pid, mine.start_ticks + 1))
    home.write_record(record(home, Process(mine.pid, mine.start_ticks + 1)))
    with pytest.raises(Rejected) as refused:
        home.running()
    assert refused.value.code == "not_running"


def test_whatever_is_made_while_an_instance_is_worked_on_is_for_the_user_alone(tmp_path):
    """Given a shell that hides nothing, then neither we nor what we start leave anything for others."""
    home = Home(tmp_path / "h")
    before = os.umask(0)
    try:
        with home.lock():
            subprocess.run(["touch", str(home.logs / "supervisord.log")], check=True)
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert [str(path) for path in home.root.rglob("*") if path.stat().st_mode & 0o077] == []


def test_only_one_up_at_a_time(home):
    with home.lock(), pytest.raises(Rejected) as refused, home.lock():
        pass
    assert refused.value.code == "already_running"
    with home.lock():
        assert home.record() is None


def test_a_broken_record_is_said_with_the_mend(home):
    home.instance_file.write_text("{")
    with pytest.raises(Rejected) as refused:
        home.record()
    assert refused.value.code == "bad_config"
    assert str(home.instance_file) in refused.value.detail["hint"]


def test_a_home_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Rejected) as refused:
        Home(tmp_path / "file" / "h").prepare()
    assert refused.value.code == "bad_config"


def test_the_public_document_has_the_promised_keys(home):
    shown = document(record(home, identify(os.getpid())))
    assert shown["home"] == str(home.root)
    assert shown["operator_url"].startswith("nats://operator:")
    assert (shown["services"]["planner"]["pid"], shown["services"]["planner"]["http"]) == (
        os.getpid(),
        "http://127.0.0.1:1",
    )


def test_a_service_that_is_gone_is_dead_whatever_the_record_says():
    assert state_of(ServiceRecord(Process(1, 1), None, "ready")) == "dead"
    assert state_of(ServiceRecord(Process(1, 1), None, "backoff")) == "backoff"


def test_a_taken_port_is_refused():
    port = free_port()
    assert claim_port(port) == port
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(Rejected) as refused:
            claim_port(port)
    assert refused.value.code == "port_in_use"


def test_a_home_of_an_older_version_gets_keys_and_loses_the_password_of_all_services(home):
    password = home.secret("operator")
    home.secret("services")
    home.nats_conf_of_old.write_text("password")
    broker = prepare(home, port=0, sync="always")
    assert not (home.keys / "services").exists()
    assert [path.name for path in home.nats_store.parent.iterdir()] == ["store"]  # nothing else stands at the store
    assert password in broker.operator_url
    conf = home.nats_conf.read_text()
    for user in USERS:
        if user.password:
            continue
        seed = home.keys / f"{user.name}.nk"
        assert stat.S_IMODE(seed.stat().st_mode) == 0o600
        assert seed.read_text().strip() not in conf
    env = environment(home, broker, UpPlan())
    assert env["NATS_NKEY"] == str(home.keys)
    assert not {"NATS_USER", "NATS_PASSWORD", "NATS_PASSWORD_FILE"} & set(env)
    before = public_keys(home.keys)
    prepare(home, port=0, sync="always")
    assert public_keys(home.keys) == before


def test_the_broker_listens_on_loopback_and_fsyncs(home):
    conf = server_conf(4222, home.nats_store, "always", "secret", public_keys(home.keys))
    assert 'listen: "127.0.0.1:4222"' in conf
    assert "sync_interval: always" in conf
    assert "max_payload: 8388608" in conf


def test_services_start_in_their_order_whatever_was_typed():
    assert chosen_services("llm-worker,planner") == ("planner", "llm-worker")
    assert chosen_services(None) == ("planner", "policy-gateway", "executor", "llm-worker", "identity")


def test_a_model_answers_for_the_names_that_strategies_use(home, monkeypatch):
    monkeypatch.delenv("NATS_URL", raising=False)
    env = environment(home, None, UpPlan(model="mock"))
    assert env["HTDAG_LLM_WORKER__ALIASES"] == (
        '{"claude-sonnet-4.5": "mock", "gemini-2.5-pro": "mock", "gemini-1.5-flash": "mock"}'
    )
    assert (env["HTDAG_HOME"], env["HTDAG_CORE__HTTP_PORT"]) == (str(home.root), "0")
