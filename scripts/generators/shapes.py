"""How Python types of the contracts are told to readers: names, fields, examples."""

import types
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import structs

from contracts.channels import CHANNELS
from contracts.codec import tag_of

_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any", type(None): "null"}


def type_words(kind: Any) -> str:
    """A type as a reader of JSON would say it."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in _WORDS:
        return _WORDS[kind]
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(type_words(argument) for argument in arguments)
    if origin is list:
        return f"list of {type_words(arguments[0])}"
    if origin is dict:
        return "object" if arguments[1] is Any else f"object of {type_words(arguments[1])}"
    if isinstance(kind, TypeVar):
        return "any"
    return str(kind.__name__)


def default_words(field: structs.FieldInfo) -> str:
    """The default of a field as JSON, or nothing when it must be given."""
    if field.required:
        return ""
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        return "defaults" if value == type(value)() else msgspec.json.encode(value).decode()
    return msgspec.json.encode(value).decode()


def tagged_types() -> list[type[Any]]:
    """Every message with a versioned type tag, in the order of the channels."""
    seen: dict[type[Any], None] = {}
    for channel in CHANNELS:
        for message in channel.messages:
            if getattr(message.__struct_config__, "tag", None):
                seen.setdefault(message)
    return list(seen)


def public_shapes() -> list[type[Any]]:
    """Messages of the public edge: the subject says what they are, so they carry no tag."""
    seen: dict[type[Any], None] = {}
    for channel in CHANNELS:
        for message in (*channel.messages, *channel.reply):
            if not message.__struct_config__.tag:
                seen.setdefault(message)
    return list(seen)


def structs_in(kind: Any) -> Iterator[type[Any]]:
    """The structs that stand anywhere inside a type, itself first."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
        for field in structs.fields(kind):
            yield from structs_in(field.type)
    for argument in get_args(kind):
        yield from structs_in(argument)


def name_of(message: type[Any]) -> str:
    """The tag of a tagged message, else the name of the struct."""
    return tag_of(message) if message.__struct_config__.tag else message.__name__
