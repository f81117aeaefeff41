"""Log lines: their shape, whose they are, and what they never show."""

import io
import json
import logging

import pytest
import structlog

from services.runtime import logs, telemetry

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture
def stream():
    """Logging set up into memory; the process's own setting is put back after the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_how_bad_what_and_who(stream):
    log = logs.configure("planner", "planner-1", stream=stream)
    log.info("epic_created", epic_id="auth")
    (line,) = lines(stream)
    assert list(line)[:5] == ["ts", "level", "msg", "service", "instance"]
    assert line["ts"].endswith("Z")
    assert (line["level"], line["msg"], line["service"], line["epic_id"]) == ("info", "epic_created", "planner", "auth")


def test_lines_below_the_level_are_dropped(stream):
    log = logs.configure("planner", level="warning", stream=stream)
    log.info("quiet")
    logging.getLogger("nats").info("quiet too")
    log.warning("loud")
    assert [line["msg"] for line in lines(stream)] == ["loud"]


def test_bound_ids_and_trace_ids_stand_in_each_line(stream):
    log = logs.configure("executor", stream=stream)
    with (
        structlog.contextvars.bound_contextvars(run_id="r1", task_id="t1"),
        telemetry.span("x", headers={"traceparent": TRACE}),
    ):
        log.info("inside")
        logging.getLogger("nats.aio").warning("reconnect %s", 1)
    log.info("outside")
    inside, foreign, outside = lines(stream)
    assert (inside["run_id"], inside["task_id"]) == ("r1", "t1")
    assert (inside["trace_id"], inside["span_id"]) == ("a" * 32, "b" * 16)
    assert (foreign["msg"], foreign["service"], foreign["trace_id"]) == ("reconnect 1", "executor", "a" * 32)
    assert "trace_id" not in outside


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("code", "483291"),
        ("code", 483291),
        ("totp", "483291"),
        ("secret", "x"),
        ("client_secret", "x"),
        ("Password", "x"),
        ("nats_password", "x"),
        ("OPENAI_API_KEY", "x"),
        ("X-Api-Key", "x"),
        ("authorization", "Bearer x"),
        ("access_token", "x"),
        ("token", "x"),
        ("password", 1234),
    ],
)
@pytest.mark.parametrize("fmt", ["json", "text"])
def test_secrets_are_hidden_at_any_depth_by_either_logger(stream, key, value, fmt):
    log = logs.configure("identity", fmt=fmt, stream=stream)
    log.info("flat", **{key: value})
    log.info("deep", body={"list": [{key: value}]})
    logging.getLogger("lib").warning("foreign", extra={key.replace("-", "_"): value})
    assert stream.getvalue().count("***") == 3
    assert "483291" not in stream.getvalue()
    assert "Bearer" not in stream.getvalue()


@pytest.mark.parametrize(
    ("key", "value"),
    [("code", "nats_unavailable"), ("token", 17), ("max_tokens", 4000), ("exit_code", 69), ("tokens", 12)],
)
def test_what_only_sounds_secret_is_shown(stream, key, value):
    logs.configure("planner", stream=stream).info("x", **{key: value})
    assert lines(stream)[0][key] == value


def test_passwords_of_urls_are_hidden_even_in_messages_and_tracebacks(stream):
    log = logs.configure("planner", stream=stream)
    log.info("to nats://ann:geheim@broker:4222", servers=["nats://ann:geheim@b:1"])
    try:
        raise OSError("cannot reach nats://ann:geheim@broker:4222")
    except OSError:
        log.exception("failed")
    assert "geheim" not in stream.getvalue()
    assert lines(stream)[0]["msg"] == "to nats://ann:***@broker:4222"


def test_tracebacks_for_people_are_searched_too(stream):
    log = logs.configure("planner", fmt="text", stream=stream)
    try:
        raise OSError("cannot reach nats://ann:geheim@broker:4222")
    except OSError:
        log.exception("failed")
    assert "cannot reach nats://ann:***@broker:4222" in stream.getvalue()
    assert "geheim" not in stream.getvalue()


def test_tracebacks_have_frames_but_never_local_variables(stream):
    log = logs.configure("identity", stream=stream)
    hidden = "483" + "291"
    try:
        raise ValueError(f"bad {len(hidden)}")
    except ValueError:
        log.exception("boom")
        logging.getLogger("lib").exception("boom too")
    for line in lines(stream):
        assert line["exception"][0]["exc_type"] == "ValueError"
        assert line["exception"][0]["frames"]
    assert hidden not in stream.getvalue()


def test_text_form_is_for_people_and_has_no_locals_either(stream):
    log = logs.configure("planner", "planner-1", fmt="text", stream=stream)
    hidden = "483" + "291"
    try:
        raise ValueError(f"bad {len(hidden)}")
    except ValueError:
        log.exception("boom", epic_id="auth")
    text = stream.getvalue()
    assert "boom" in text
    assert "ValueError: bad 6" in text
    assert hidden not in text


def test_a_stream_that_is_no_terminal_gets_json(stream):
    logs.configure("planner", fmt="auto", stream=stream).info("x")
    assert lines(stream)[0]["msg"] == "x"


def test_anything_can_be_logged_and_nothing_floods(stream):
    log = logs.configure("planner", stream=stream)
    log.info("x", object=object(), bytes=b"\xff", set={1}, long="y" * 100_000)
    (line,) = lines(stream)
    assert line["object"].startswith("<object")
    assert line["long"].endswith("(100000 characters)")
    assert len(line["long"]) < 17_000


def test_a_log_that_nobody_reads_any_more_breaks_nothing(stream: io.StringIO) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    log = logs.configure("planner", stream=Gone())
    log.info("stop_asked")
    logging.getLogger("nats").warning("gone")
