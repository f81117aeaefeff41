"""What a scratch instance is given: nothing of the user's settings, and an authenticator that shows the right codes."""

from base64 import b32encode
from pathlib import Path

import pytest

from services.console.conformance.errors.scratch.people import code_at
from services.console.home import Home
from services.console.supervision.plan import UpPlan, environment


@pytest.mark.parametrize(
    ("now_s", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")],
)
def test_codes_are_those_of_rfc_6238(now_s, code):
    assert code_at(b32encode(b"12345678901234567890").decode(), now_s) == code


def test_settings_take_the_place_of_all_that_the_environment_says_to_htdag(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HTDAG_POLICY__AUTO_ADMIN", "true")
    monkeypatch.setenv("HTDAG_NATS_SERVER", "/a/nats-server")
    monkeypatch.setenv("NATS_URL", "nats://10.0.0.1:4222")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    home = Home(tmp_path)
    env = environment(home, None, UpPlan(settings={"HTDAG_CORE__DRAIN_S": "1"}))
    assert env["HTDAG_CORE__DRAIN_S"] == env["SOMETHING_ELSE"] == "1"
    assert env["HTDAG_NATS_SERVER"] == "/a/nats-server"
    assert not {"HTDAG_POLICY__AUTO_ADMIN", "NATS_URL"} & set(env)
    assert environment(home, None, UpPlan())["HTDAG_POLICY__AUTO_ADMIN"] == "true"
