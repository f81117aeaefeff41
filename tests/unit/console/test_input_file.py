"""What commands read is bounded, and says what is wrong with it."""

import pytest

from contracts.errors import Rejected
from contracts.limits import REQUEST_BYTES_MAX
from services.console.input_file import read, read_text


def test_text_is_read_whole(tmp_path):
    file = tmp_path / "question.txt"
    file.write_text("What is a graph?\n")
    assert read_text(str(file)) == "What is a graph?\n"


def test_what_is_not_utf8_is_refused_with_the_place(tmp_path):
    file = tmp_path / "question.txt"
    file.write_bytes(b"What \xff?")
    with pytest.raises(Rejected, match="not UTF-8 at byte 5") as refused:
        read_text(str(file))
    assert refused.value.code == "bad_request"


def test_more_than_a_request_holds_is_refused(tmp_path):
    file = tmp_path / "big.json"
    file.write_bytes(b" " * (REQUEST_BYTES_MAX + 1))
    with pytest.raises(Rejected) as refused:
        read(str(file))
    assert refused.value.code == "too_large"
