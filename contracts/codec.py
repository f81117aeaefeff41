"""Bytes to events and back: type tags, upcasters, and what happens to a type that nobody knows.

An aggregate must know every event of its own log: an unknown type stops it (`UnknownType`). A projection may skip.
An upcaster turns the JSON of an old version into the JSON of the next one; old versions are read for ever.
"""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Final, Generic, TypeVar, get_args

import msgspec

from contracts.commit import Commit

E = TypeVar("E")
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

HEADERS_REMEMBERED_MAX: Final = 1_000

_ENCODE: Final = msgspec.json.Encoder().encode


class UnknownType(ValueError):
    """A stored event has a type tag that this code does not know."""


class Undecodable(ValueError):
    """Stored bytes are no commit, or an event does not fit its type."""


class _RawCommit(msgspec.Struct, frozen=True):
    at: str
    by: str
    cause: str
    corr: str
    events: list[dict[str, Any]]


def tag_of(message_type: type[Any]) -> str:
    """The type tag of a tagged struct, e.g. `task.started.v1`."""
    tag = msgspec.inspect.type_info(message_type).tag  # type: ignore[attr-defined]
    if not isinstance(tag, str):
        raise TypeError(f"{message_type.__name__} has no type tag")
    return tag


class CommitCodec(Generic[E]):
    """Encodes and decodes the commits of one aggregate.

    `events` is the union of all its event structs; `upcasters` maps an old tag to the function that lifts it.
    """

    def __init__(self, events: UnionType | type[Any], upcasters: Mapping[str, Upcaster] | None = None) -> None:
        members = get_args(events) or (events,)
        self.types: Mapping[str, type[Any]] = {tag_of(member): member for member in members}
        self.tags: Mapping[type[Any], str] = {member: tag for tag, member in self.types.items()}
        self._upcasters = dict(upcasters or {})
        self._decode: Callable[[bytes], Commit[E]] = msgspec.json.Decoder(Commit[events]).decode  # type: ignore[valid-type]
        self._headers: dict[tuple[type[Any], ...], str] = {}
        self._decode_raw = msgspec.json.Decoder(_RawCommit).decode

    def encode(self, commit: Commit[E]) -> bytes:
        """The bytes to store."""
        return _ENCODE(commit)

    def decode(self, data: bytes, *, skip_unknown: bool = False) -> Commit[E]:
        """The commit in `data`. Raises UnknownType (unless `skip_unknown`) or Undecodable."""
        try:
            return self._decode(data)
        except msgspec.MsgspecError:
            return self._decode_slowly(data, skip_unknown)
        except (RecursionError, UnicodeDecodeError) as error:
            raise Undecodable(f"{type(error).__name__} in a commit") from error

    def types_header(self, events: list[E]) -> str:
        """The distinct tags of `events`, in order of first appearance, for `Htdag-Types`."""
        kinds = tuple(dict.fromkeys(map(type, events)))
        header = self._headers.get(kinds)
        if header is None:
            # As many as there are ways to decide, in practice a few dozen; bounded all the same.
            if len(self._headers) >= HEADERS_REMEMBERED_MAX:
                self._headers.clear()
            header = self._headers[kinds] = ",".join([self.tags[kind] for kind in kinds])
        return header

    def _decode_slowly(self, data: bytes, skip_unknown: bool) -> Commit[E]:
        try:
            raw = self._decode_raw(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Undecodable(f"not a commit: {error}") from error
        events: list[E] = []
        for item in raw.events:
            lifted = self._lift(item)
            kind = self.types.get(str(lifted.get("type")))
            if kind is None:
                if skip_unknown:
                    continue
                raise UnknownType(str(item.get("type")))
            try:
                events.append(msgspec.convert(lifted, kind))
            except msgspec.ValidationError as error:
                raise Undecodable(f"{item.get('type')}: {error}") from error
        return Commit(at=raw.at, by=raw.by, cause=raw.cause, corr=raw.corr, events=events)

    def _lift(self, item: dict[str, Any]) -> dict[str, Any]:
        for _ in range(len(self._upcasters) + 1):
            upcaster = self._upcasters.get(str(item.get("type")))
            if upcaster is None:
                return item
            item = upcaster(item)
        raise Undecodable(f"upcasters of {item.get('type')} do not end")
