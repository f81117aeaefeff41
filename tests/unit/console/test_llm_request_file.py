"""An LLM request from a file, from standard input, or as a question."""

import pytest

from contracts.errors import Rejected
from services.console.llm_request_file import request_of


def test_a_request_comes_from_a_file_or_is_a_question(tmp_path):
    file = tmp_path / "req.json"
    file.write_text('{"model_id":"a","params":{"seed":1}}')
    assert request_of(str(file), "b", 5) == {"model_id": "b", "params": {"seed": 1, "max_tokens": 5}}
    assert request_of("What?", "b", None) == {
        "model_id": "b",
        "input": {"messages": [{"role": "user", "content": "What?"}]},
    }
    for text, code in (
        (b"[]", "bad_json"),
        (b"{", "bad_json"),
        (b'{"a":' * 100_000, "bad_json"),
        (b"\xff", "bad_json"),
    ):
        file.write_bytes(text)
        with pytest.raises(Rejected) as refused:
            request_of(str(file), None, None)
        assert refused.value.code == code
    with pytest.raises(Rejected, match="there is no file"):
        request_of(str(tmp_path / "nowhere.json"), None, None)
