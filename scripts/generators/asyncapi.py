"""contracts/asyncapi.json: every subject, message and request as AsyncAPI 3.0."""

import json
import re
from importlib.metadata import version
from typing import Any

import msgspec

from contracts.channel import ChannelSpec
from contracts.channels import CHANNELS, PARAMETERS
from contracts.errors import CATALOGUE
from contracts.verbs import VERBS, VerbSpec
from scripts.generators.shapes import name_of, type_words

_REF = "#/components/schemas/{name}"


def render() -> str:
    """The document as indented JSON."""
    types = list(dict.fromkeys([*_channel_types(), *(verb.request for verb in VERBS)]))
    replies = [verb.reply for verb in VERBS]
    schemas, components = msgspec.json.schema_components([*types, *replies], ref_template=_REF)
    components["Error"] = _error_schema()
    messages: dict[str, Any] = {
        kind.__name__: _message(kind, schema) for kind, schema in zip(types, schemas, strict=False)
    }
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for channel in CHANNELS:
        _add_channel(channel, channels, operations, messages)
    for verb, reply in zip(VERBS, schemas[len(types) :], strict=True):
        _add_verb(verb, reply, channels, operations, messages)
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "htdag",
            "version": version("htdag"),
            "description": "Messages of htdag. Generated from contracts/ by scripts/generate.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"embedded": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": channels,
        "operations": operations,
        "components": {"schemas": _with_plain_discriminators(components), "messages": messages},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _with_plain_discriminators(value: Any) -> Any:
    """AsyncAPI names the property only; the mapping that OpenAPI knows is left out."""
    if isinstance(value, list):
        return [_with_plain_discriminators(item) for item in value]
    if isinstance(value, dict):
        plain = {key: _with_plain_discriminators(item) for key, item in value.items()}
        if isinstance(plain.get("discriminator"), dict):
            plain["discriminator"] = plain["discriminator"]["propertyName"]
        return plain
    return value


def _channel_types() -> list[Any]:
    return [message for channel in CHANNELS for message in (*channel.messages, *channel.reply)]


def _message(kind: Any, schema: dict[str, Any]) -> dict[str, Any]:
    meaning = (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n    ", " ")
    return {"name": name_of(kind), "title": kind.__name__, "summary": meaning, "payload": schema}


def _ref(path: str) -> dict[str, str]:
    return {"$ref": path}


def _add_channel(
    channel: ChannelSpec, channels: dict[str, Any], operations: dict[str, Any], messages: dict[str, Any]
) -> None:
    carried = {kind.__name__: _ref(f"#/components/messages/{kind.__name__}") for kind in channel.messages}
    if channel.kind == "commit":
        commit = f"{channel.name[0].upper()}{channel.name[1:-1]}"
        messages[commit] = _commit_message(channel, commit)
        carried = {commit: _ref(f"#/components/messages/{commit}")}
    channels[channel.name] = {
        "address": channel.address,
        "description": _channel_words(channel),
        "messages": carried,
        "parameters": {name: {"description": PARAMETERS[name]} for name in re.findall(r"\{(\w+)\}", channel.address)},
    }
    if not channels[channel.name]["parameters"]:
        del channels[channel.name]["parameters"]
    operation: dict[str, Any] = {"action": "receive", "channel": _ref(f"#/channels/{channel.name}")}
    operation["summary"] = channel.meaning
    if channel.reply:
        operation["reply"] = _reply_channel(channel.name, channel.reply, channels)
    operations[f"{channel.name}Received"] = operation


def _channel_words(channel: ChannelSpec) -> str:
    kept = f" Kept in stream {channel.stream}." if channel.stream else ""
    return f"{channel.meaning}. Published by {channel.publishers}; consumed by {channel.consumers}.{kept}"


def _commit_message(channel: ChannelSpec, title: str) -> dict[str, Any]:
    events = [_ref(_REF.format(name=kind.__name__)) for kind in channel.messages]
    text = {"type": "string"}
    payload = {
        "type": "object",
        "description": "All events of one decision.",
        "properties": {"at": text, "by": text, "cause": text, "corr": text}
        | {"events": {"type": "array", "items": {"anyOf": events}}},
        "required": ["at", "by", "cause", "corr", "events"],
    }
    headers = {
        "type": "object",
        "properties": {"Nats-Msg-Id": text, "Htdag-Types": text, "Htdag-Summary": text, "traceparent": text},
    }
    return {"name": title, "title": title, "summary": channel.meaning, "payload": payload, "headers": headers}


def _reply_channel(name: str, replies: tuple[Any, ...], channels: dict[str, Any]) -> dict[str, Any]:
    channels[f"{name}Reply"] = {
        "address": None,
        "description": "the inbox of the caller",
        "messages": {kind.__name__: _ref(f"#/components/messages/{kind.__name__}") for kind in replies},
    }
    return {"channel": _ref(f"#/channels/{name}Reply")}


def _add_verb(
    verb: VerbSpec,
    reply: dict[str, Any],
    channels: dict[str, Any],
    operations: dict[str, Any],
    messages: dict[str, Any],
) -> None:
    service = "".join(part.title() for part in verb.service.split("-"))
    name = f"{service[0].lower()}{service[1:]}{verb.noun.title()}{verb.verb.title()}"
    channels[name] = {
        "address": verb.subject,
        "description": f"{verb.meaning}. Answered by {verb.service} (queue group).",
        "messages": {verb.request.__name__: _ref(f"#/components/messages/{verb.request.__name__}")},
    }
    title = f"{name[0].upper()}{name[1:]}Reply"
    messages[title] = {
        "name": title,
        "title": title,
        "summary": f"ok with {type_words(verb.reply)}, or the error",
        "payload": {"oneOf": [_ok_schema(reply), _refused_schema()]},
    }
    channels[f"{name}Reply"] = {
        "address": None,
        "description": "the inbox of the caller",
        "messages": {title: _ref(f"#/components/messages/{title}")},
    }
    operations[name] = {
        "action": "receive",
        "channel": _ref(f"#/channels/{name}"),
        "summary": verb.meaning,
        "reply": {"channel": _ref(f"#/channels/{name}Reply")},
    }


def _ok_schema(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"ok": {"const": True}, "value": value}, "required": ["ok", "value"]}


def _refused_schema() -> dict[str, Any]:
    error = _ref("#/components/schemas/Error")
    return {"type": "object", "properties": {"ok": {"const": False}, "error": error}, "required": ["ok", "error"]}


def _error_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "description": "A refusal or failure; detail stands beside these fields.",
        "properties": {
            "class": {"enum": sorted({kind.error_class for kind in CATALOGUE.values()})},
            "code": {"enum": sorted(CATALOGUE)},
            "message": text,
            "hint": text,
        },
        "required": ["class", "code", "message"],
        "additionalProperties": True,
    }
