"""An LLM request as people give it: a file, standard input, or only a question."""

from typing import Any

from contracts.errors import Rejected
from services.console.input_file import STDIN, parse, read


def request_of(what: str, model: str | None, max_tokens: int | None) -> dict[str, Any]:
    """The body of `llm.estimate`. Raises Rejected not_found, bad_request, too_large or bad_json."""
    if what != STDIN and not what.endswith(".json"):
        request: Any = {"input": {"messages": [{"role": "user", "content": what}]}}
    else:
        request = parse(read(what), what)
    if not isinstance(request, dict):
        raise Rejected("bad_json", f"{what} holds no JSON object")
    if model is not None:
        request["model_id"] = model
    if max_tokens is not None:
        params = request.get("params")
        request["params"] = {**(params if isinstance(params, dict) else {}), "max_tokens": max_tokens}
    return request
