"""The clock of a test: read at each use, and refused beyond loopback."""

import pytest

from contracts.approval import APPROVAL_TIMEOUT_MAX_MS
from contracts.errors import Rejected
from services.identity import codes
from services.runtime.clock import rfc3339
from services.runtime.file_clock import FileClock, refuse_beyond_loopback


def test_the_time_is_what_the_file_says_now(tmp_path):
    file = tmp_path / "clock"
    file.write_text("1790000000\n")
    clock = FileClock(file)
    assert clock.now_ms() == 1_790_000_000_000
    file.write_text("1790000000.25")
    assert clock.now_ms() == 1_790_000_000_250
    file.write_text("")
    assert clock.now_ms() == 1_790_000_000_250, "it is being written right now"


@pytest.mark.parametrize("text", ["", "noon", "nan", "inf", "-5", "0", "59", "9" * 30, "253370764800"])
def test_what_is_no_time_is_refused(tmp_path, text):
    file = tmp_path / "clock"
    file.write_text(text)
    with pytest.raises(Rejected, match="bad_config"):
        FileClock(file).now_ms()


@pytest.mark.parametrize("text", ["60", "253370764799.999"])
def test_every_time_in_between_has_codes_and_a_date(tmp_path, text):
    file = tmp_path / "clock"
    file.write_text(text)
    now_ms = FileClock(file).now_ms()
    codes.matched_step(codes.new_secret(), "000000", now_ms)
    assert rfc3339(now_ms + APPROVAL_TIMEOUT_MAX_MS)


@pytest.mark.parametrize("place", ["nats://127.0.0.1:4222", "nats://a:b@localhost:1", "::1", "[::1]:4222", "127.0.0.1"])
def test_loopback_is_accepted(place):
    refuse_beyond_loopback({"it": place})


@pytest.mark.parametrize("place", ["0.0.0.0", "nats://nats:4222", "::", "", "nats://127.0.0.1:1,nats://10.0.0.1:1"])
def test_everything_else_is_not(place):
    with pytest.raises(Rejected, match="beyond loopback"):
        refuse_beyond_loopback({"it": place})
