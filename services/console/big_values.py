"""Values that were too big to travel, fetched so that people see all of them."""

from typing import TYPE_CHECKING, Any

import msgspec

from contracts.errors import Rejected
from contracts.llm import OutputRef

if TYPE_CHECKING:
    from services.runtime.bus import Bus

REF = "output_ref"


async def whole(bus: "Bus", value: Any) -> Any:
    """The same value, with every `output` that is only the beginning of one replaced by all of it.

    One that is kept no more stays as it is, with its reference.
    """
    if isinstance(value, list):
        return [await whole(bus, item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {name: await whole(bus, item) for name, item in value.items() if name != REF}
    given = value.get(REF)
    if given is None:
        return found
    from services.runtime import objects

    try:
        ref = msgspec.convert(given, OutputRef)
        return {**found, "output": (await objects.get(bus, ref)).decode(errors="replace")}
    except (Rejected, msgspec.ValidationError):
        return {**found, REF: given}
