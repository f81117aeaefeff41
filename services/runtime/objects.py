"""Values that are too big for one message, in an object store of the broker: `nats object get` reads them too.

A value is stored under the digest of its content, so that the same value is stored once and a reader can tell that it
got what was meant.
"""

import base64
import hashlib
import secrets
from typing import Final

import msgspec

from contracts.errors import Rejected
from contracts.llm import OutputRef
from contracts.streams import bucket_stream
from services.runtime.bus import Bus
from services.runtime.clock import Clock, rfc3339

CHUNK_BYTES: Final = 512 << 10
"""Below the payload of a broker that nobody has configured."""
_ENCODE: Final = msgspec.json.Encoder().encode


class _Options(msgspec.Struct, frozen=True):
    max_chunk_size: int


class _Meta(msgspec.Struct, frozen=True):
    """What an object store of NATS says of an object."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    digest: str
    mtime: str = ""
    options: _Options = _Options(CHUNK_BYTES)
    deleted: bool = False


_META: Final = msgspec.json.Decoder(_Meta).decode


async def put(bus: Bus, clock: Clock, bucket: str, data: bytes) -> OutputRef:
    """Store a value and return what refers to it. Raises Rejected."""
    digest = hashlib.sha256(data)
    name = digest.hexdigest()
    ref = OutputRef(bucket=bucket, name=name, bytes=len(data), sha256=name)
    stream = bucket_stream(bucket)
    if await bus.last(stream, _meta_subject(bucket, name)) is not None:
        return ref
    # Two that store the same at once must not mix their pieces.
    nuid = secrets.token_hex(11)
    pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
    for number, piece in enumerate(pieces):
        await bus.store(f"$O.{bucket}.C.{nuid}", piece, stream=stream, msg_id=f"{nuid}-{number}")
    told = "SHA-256=" + base64.urlsafe_b64encode(digest.digest()).decode()
    meta = _Meta(name, bucket, nuid, len(data), len(pieces), told, rfc3339(clock.now_ms()))
    # The description comes last: what has one is whole.
    headers = {"Nats-Rollup": "sub"}
    await bus.store(_meta_subject(bucket, name), _ENCODE(meta), stream=stream, msg_id=nuid, headers=headers)
    return ref


async def get(bus: Bus, ref: OutputRef) -> bytes:
    """The value. Raises Rejected("not_found") when it is kept no more, "internal" when it is not what was meant."""
    stream = bucket_stream(ref.bucket)
    entry = await bus.last(stream, _meta_subject(ref.bucket, ref.name))
    if entry is None:
        raise Rejected("not_found", "the value is kept no more", bucket=ref.bucket, name=ref.name)
    meta = _META(entry.data)
    pieces = [piece.data async for piece in bus.history(stream, f"$O.{ref.bucket}.C.{meta.nuid}")]
    data = b"".join(pieces)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise Rejected("internal", "the stored value is not what was meant", bucket=ref.bucket, name=ref.name)
    return data


def _meta_subject(bucket: str, name: str) -> str:
    return f"$O.{bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
