"""From a subject and bytes to a normalised request, or to a refusal that names the field. Pure."""

import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from contracts.errors import Rejected
from contracts.limits import (
    ID_CHARS_MAX,
    JSON_DEPTH_MAX,
    LLM_ATTEMPT_MAX,
    LLM_MESSAGES_MAX,
    LLM_OUTPUT_TOKENS_MAX,
    LLM_TIMEOUT_MAX_MS,
)
from contracts.llm import LegacyLlmRequest, LlmError, LlmInput, LlmParams, LlmRequest
from contracts.subjects import ID, check_id
from services.llm_worker.models import same_model
from services.runtime.intake import deeper_than, field_of

T = TypeVar("T")

CORR_ID: Final = re.compile(r"[\x21-\x7e]{1,256}\Z")
TEMPERATURE_MAX: Final = 2.0
ADHOC_NODE: Final = "call"

_DECODE = msgspec.json.Decoder(LlmRequest).decode
_DECODE_LEGACY = msgspec.json.Decoder(LegacyLlmRequest).decode
_DECODE_ANY = msgspec.json.Decoder(dict[str, Any]).decode
_ENCODE = msgspec.json.Encoder().encode


class _LoggedParams(msgspec.Struct, frozen=True, omit_defaults=True):
    """Parameters as they are journaled: the four that have a default are always written out."""

    stream: bool
    temperature: float
    max_tokens: int
    timeout_ms: int
    seed: int | None = None
    top_p: float | None = None
    stop: list[str] | None = None
    response_schema: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    complexity: float | None = None
    mock: dict[str, Any] | None = None
    cache: bool = False
    allow_unpriced: bool = False


class _Logged(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request as it is journaled: nothing is left to a default."""

    run_id: str
    node_id: str
    corr_id: str
    attempt: int
    model_id: str
    input: LlmInput
    params: _LoggedParams
    replay_of: str = ""


def encode_logged(request: LlmRequest) -> bytes:
    """The bytes to journal."""
    p = request.params
    params = _LoggedParams(
        p.stream,
        p.temperature,
        p.max_tokens,
        p.timeout_ms,
        p.seed,
        p.top_p,
        p.stop,
        p.response_schema,
        p.tools,
        p.complexity,
        p.mock,
        p.cache,
        p.allow_unpriced,
    )
    r = request
    return _ENCODE(_Logged(r.run_id, r.node_id, r.corr_id, r.attempt, r.model_id, r.input, params, r.replay_of))


def compile_request(
    data: bytes, *, subject_model: str, new_id: Callable[[], str], bytes_max: int, message_id: str = ""
) -> LlmRequest:
    """The request in `data`, with every id filled in. `message_id` is the caller's `Nats-Msg-Id`, used as `corr_id`.

    Raises Rejected: too_large, bad_json, invalid_request (naming `field`), bad_id, model_mismatch.
    """
    request = _decode(data, _DECODE, bytes_max)
    named = request.model_id
    if named and not same_model(named, subject_model):
        raise Rejected("model_mismatch", subject=subject_model, body=named)
    return _complete(request, named or subject_model, new_id, message_id)


def compile_legacy(data: bytes, *, new_id: Callable[[], str], bytes_max: int, message_id: str = "") -> LlmRequest:
    """The same for the old path, whose body names the model; without one it is missing_param `model_id`."""
    old = _decode(data, _DECODE_LEGACY, bytes_max)
    if not old.model:
        raise Rejected("missing_param", "the request names no model", param="model_id", field="model")
    params = LlmParams(
        stream=old.stream, temperature=old.temperature, max_tokens=old.max_tokens, timeout_ms=old.timeout_ms
    )
    request = LlmRequest(
        LlmInput(old.messages), old.run_id, old.node_id, old.corr_id, old.model, params, attempt=old.attempt
    )
    return _complete(request, old.model, new_id, message_id)


def refusal(data: bytes, error: Rejected, *, model_id: str) -> LlmError:
    """The answer to a request that was refused: its ids and attempt as far as they can be read."""
    try:
        body = _DECODE_ANY(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        body = {}
    run_id, node_id, corr_id = (
        value if isinstance(value := body.get(name), str) else "" for name in ("run_id", "node_id", "corr_id")
    )
    attempt = body.get("attempt")
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not 1 <= attempt <= LLM_ATTEMPT_MAX:
        attempt = 1
    return LlmError(run_id, node_id, corr_id, model_id, error.to_wire(), attempt)


def adhoc_run(corr_id: str) -> str:
    """The run id of a call that belongs to no run: the same for the same `corr_id`, so that a repeat finds it."""
    run_id = f"adhoc-{corr_id}"
    if len(run_id) <= ID_CHARS_MAX and ID.match(run_id):
        return run_id
    return f"adhoc-{hashlib.sha256(corr_id.encode()).hexdigest()[:32]}"


def _complete(request: LlmRequest, model_id: str, new_id: Callable[[], str], message_id: str) -> LlmRequest:
    check_request(request)
    corr_id = request.corr_id or message_id or new_id()
    if not CORR_ID.match(corr_id):
        raise Rejected("bad_id", "corr_id is malformed", field="corr_id", hint="1 to 256 visible ASCII characters")
    run_id = request.run_id or adhoc_run(corr_id)
    node_id = request.node_id or ADHOC_NODE
    if (run_id, node_id, corr_id, model_id) == (request.run_id, request.node_id, request.corr_id, request.model_id):
        return request
    return msgspec.structs.replace(request, run_id=run_id, node_id=node_id, corr_id=corr_id, model_id=model_id)


def check_request(request: LlmRequest) -> None:
    """Raise Rejected naming the first field that is out of bounds."""
    if request.run_id:
        check_id(request.run_id, "run_id")
    if request.node_id:
        check_id(request.node_id, "node_id")
    if request.replay_of and not CORR_ID.match(request.replay_of):
        raise Rejected("bad_id", "replay_of is malformed", field="replay_of")
    _check_range("attempt", request.attempt, 1, LLM_ATTEMPT_MAX)
    _check_messages(request.input.messages)
    params = request.params
    _check_range("params.temperature", params.temperature, 0.0, TEMPERATURE_MAX)
    _check_range("params.max_tokens", params.max_tokens, 1, LLM_OUTPUT_TOKENS_MAX)
    _check_range("params.timeout_ms", params.timeout_ms, 1, LLM_TIMEOUT_MAX_MS)
    if params.top_p is not None:
        _check_range("params.top_p", params.top_p, 0.0, 1.0)


def _check_messages(messages: list[dict[str, Any]]) -> None:
    if not messages:
        raise _invalid("input.messages", "messages is empty")
    if len(messages) > LLM_MESSAGES_MAX:
        raise _invalid("input.messages", "too many messages", max=LLM_MESSAGES_MAX, got=len(messages))
    for index, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise _invalid(f"input.messages[{index}].role", "a message needs a role")
        calls = message.get("tool_calls")
        if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
            raise _invalid(f"input.messages[{index}].tool_calls", "tool_calls is a list of objects")
        content = message.get("content")
        if not isinstance(content, str | list) and not (content is None and message.get("tool_calls")):
            raise _invalid(f"input.messages[{index}].content", "a message needs content: text or a list of parts")


def _check_range(field: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise _invalid(field, f"{field} is out of range", min=least, max=most, got=value)


def _invalid(field: str, message: str, **detail: Any) -> Rejected:
    return Rejected("invalid_request", message, field=field, **detail)


def _decode(data: bytes, decode: Callable[[bytes], T], bytes_max: int) -> T:
    if len(data) > bytes_max:
        raise Rejected("too_large", max=bytes_max, got=len(data))
    try:
        request = decode(data)
    except msgspec.ValidationError as error:
        field = field_of(str(error))
        if not field:
            raise Rejected("bad_json", "the request is not a JSON object") from error
        raise _invalid(field, str(error)) from error
    except msgspec.DecodeError as error:
        raise Rejected("bad_json", f"the request is not JSON: {error}") from error
    except UnicodeDecodeError as error:
        raise Rejected("bad_json", "the request is not UTF-8") from error
    except RecursionError as error:
        raise Rejected("bad_json", "the request is nested too deep", max=JSON_DEPTH_MAX) from error
    if deeper_than(data, JSON_DEPTH_MAX):
        raise Rejected("bad_json", "the request is nested too deep", max=JSON_DEPTH_MAX)
    return request
