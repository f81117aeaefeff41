"""The one envelope of every request/reply: `{"ok":true,"value":…}` or `{"ok":false,"error":{…}}`."""

from typing import Any

import msgspec

from contracts.errors import Rejected


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """A decoded reply. `value` counts when `ok`, else `error`."""

    ok: bool
    value: Any = None
    error: dict[str, Any] | None = None


_DECODE = msgspec.json.Decoder(Reply).decode
_ENCODE = msgspec.json.Encoder().encode


class RemoteRejected(Exception):
    """A service refused; `error` is the wire error as it came."""

    def __init__(self, error: dict[str, Any]) -> None:
        self.error = error
        self.code = str(error.get("code", "internal"))
        super().__init__(f"{self.code}: {error.get('message', '')}")


def ok(value: Any) -> bytes:
    """Encode a good reply."""
    return _ENCODE({"ok": True, "value": value})


def refused(error: Rejected | dict[str, Any]) -> bytes:
    """Encode a refusal."""
    return _ENCODE({"ok": False, "error": error.to_wire() if isinstance(error, Rejected) else error})


def parse(data: bytes) -> Any:
    """The value of a reply; raises RemoteRejected when it is a refusal, Rejected("internal") when it is no reply."""
    try:
        reply = _DECODE(data)
    except msgspec.MsgspecError as error:
        raise Rejected("internal", "the reply is not an htdag reply") from error
    if reply.ok:
        return reply.value
    raise RemoteRejected(
        reply.error or {"class": "internal", "code": "internal", "message": "refused without a reason"}
    )
