"""How much of a message may differ from what was written of it once: the default of a later field, and no more."""

from typing import Any

import msgspec
from msgspec import structs


def without_later_fields(written: bytes, message: type[Any], old: bytes) -> bytes:
    """What is written now, without the defaults of fields that came after `old` and are always written out."""
    there, always = msgspec.json.decode(old), defaults_written_out(message)
    kept = {
        name: value
        for name, value in msgspec.json.decode(written).items()
        if name in there or name not in always or always[name] != value
    }
    return msgspec.json.encode(kept)


def defaults_written_out(message: type[Any]) -> dict[str, Any]:
    """Fields that may be missing in what is read and are in all that is written, with what they then are."""
    omits = message.__struct_config__.omit_defaults
    return {
        field.encode_name: msgspec.to_builtins(
            field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        )
        for field in structs.fields(message)
        if not field.required and (not omits or field.default_factory is not msgspec.NODEFAULT)
    }
