"""Streams and consumers as the contracts want them, made and changed with the one key that may.

The operator's password may look at the streams that hold what was, and never change them: whoever may change what a
stream keeps may empty it. The key `bootstrap` lies, 0600, in the home of an embedded broker, or in the folder that
`htdag bus keys` made and NATS_NKEY names. A broker without users of its own takes whoever is connected.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from contracts.errors import Rejected
from contracts.rights import BOOTSTRAP
from services.console.connection import broker_url, bus_at, started
from services.console.interruption import ends_when_told
from services.console.options import Common

if TYPE_CHECKING:
    from services.runtime.provision import Change

BROKER_START_S: Final = 5.0
"""Who makes streams has often just started the broker: it may take so long to answer."""
_REFUSED: Final = "permissions violation"
_HINT: Final = f"NATS_NKEY names the folder of `htdag bus keys`, with {BOOTSTRAP}.nk in it"


async def keep(common: Common, *, dry: bool) -> "list[Change]":
    """Make and change what differs; with `dry` only say so. Raises nats_denied without the right, stream_differs."""
    from services.runtime import nkeys, provision

    url, folder = broker_url(common), key_folder(common)
    key = nkeys.load(folder, BOOTSTRAP) if folder is not None else None
    said: list[str] = []
    with ends_when_told():
        await started(url, BROKER_START_S)
        async with bus_at(_anonymous(url) if key else url, key=key, log=said.append) as bus:
            try:
                return await provision.apply(bus, dry=dry)
            except Rejected as error:
                # A request that the broker does not let through is answered by nobody.
                if error.code == "timeout" and any(_REFUSED in text.lower() for text in said):
                    raise Rejected("nats_denied", "this user may not change streams", hint=_HINT) from error
                # A consumer that the broker does not change in place: the same thing as a stream that it does not.
                if error.code == "internal" and str(error.detail.get("api", "")).startswith("CONSUMER.CREATE."):
                    raise Rejected("stream_differs", error.message, api=error.detail["api"]) from error
                raise


async def make_missing(common: Common) -> list[str]:
    """Make the streams and consumers that the broker lacks; their names. Raises as `keep` does."""
    lacking = [change.name for change in await keep(common, dry=True) if change.action == "create"]
    if lacking:
        await keep(common, dry=False)
    return lacking


def key_folder(common: Common) -> Path | None:
    """The folder with the key for the broker that `common` means; None where there is none."""
    record = common.place.record()
    if record is not None and record.broker is not None and broker_url(common) == record.operator_url:
        return common.place.keys
    named = Path(os.environ.get("NATS_NKEY") or "/dev/null").expanduser()
    folder = named if named.is_dir() else named.parent
    return folder if (folder / f"{BOOTSTRAP}.nk").is_file() else None


def _anonymous(url: str) -> str:
    """The URL, or several, without a user in it: the key says who we are."""
    parts = [urlsplit(one if "//" in one else f"nats://{one}") for one in url.split(",")]
    return ",".join(one._replace(netloc=one.netloc.rpartition("@")[2]).geturl() for one in parts)
