"""subjects.md: every subject, request, message, stream, error code and limit, for people."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from msgspec import structs

from contracts import limits
from contracts.channels import CHANNELS, PARAMETERS
from contracts.errors import CATALOGUE
from contracts.listener import ROUTES, RouteSpec
from contracts.metrics import METRICS
from contracts.streams import CONSUMERS, STREAMS
from contracts.verbs import VERBS, VerbSpec
from scripts.generators.shapes import default_words, name_of, public_shapes, structs_in, tagged_types, type_words

_HEAD = """\
# Subjects and messages

Generated from `contracts/` by `scripts/generate`; do not edit. The same as machine-readable files:
`contracts/asyncapi.json` (AsyncAPI 3.0) and `contracts/schemas/` (JSON Schema, one per message).

Everything is JSON. Unknown fields are ignored. An id is one token `[A-Za-z0-9_-]{1,64}`; a model id may hold dots and
takes the rest of its subject. Root of the versioned subjects: `htdag.v1.`; the short ones (`llm.…`) are public and
frozen as version 1.

A request is answered in one envelope: `{"ok":true,"value":…}` or
`{"ok":false,"error":{"class":…,"code":…,"message":…,"hint":…,…detail}}`. The reply to a command comes after its commit
is stored. Send a request with any NATS client, for instance `nats request htdag.v1.executor.run.list '{}'`.
"""

_COMMIT = """\
One stored message carries all events of one decision:
`{"at":"RFC 3339 UTC","by":"<principal>","cause":"<message id>","corr":"<correlation id>","events":[{"type":…},…]}`.
Headers: `Nats-Msg-Id`, `Htdag-Types` (distinct type tags, comma separated), `Htdag-Summary` (what a list shows),
`traceparent`. One aggregate has one subject for its whole life.
"""

_LISTENER = """\
What no subject leads to: identity listens over HTTP on 127.0.0.1 and ::1 and nowhere else. Each running identity says
its address in `run/*.local` of the home, under `url`. Callers from elsewhere, through a proxy, or under another host
name are refused with `not_local`. A body is one JSON object of the fields named here, all text; those in brackets may
be left out: `user` is the signed-in one then, or the only human there is; `presence` is the word beside `url`, which
gives whoever reads the home attempts of their own. A session (`/auth/session/`) is sent as
`Authorization: Bearer SESSION`. A refusal is `application/problem+json` (RFC 9457) with the error's class, code,
message and hint in it.
"""


def render(golden: Path) -> str:
    """The whole document; examples of tagged messages are the golden bytes in `golden`."""
    parts = [_HEAD, *_requests(), *_listener(), *_channels(), *_messages(golden), *_shapes()]
    parts += [*_streams(), *_errors(), *_limits(), *_metrics()]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    def line(cells: Iterable[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    titles = list(head)
    return "\n".join([line(titles), line("---" for _ in titles), *map(line, rows)]) + "\n"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _anchor(kind: type[Any]) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def _typed(kind: Any) -> str:
    """Type words with the structs in them linked to their section."""
    words = type_words(kind)
    for struct in dict.fromkeys(structs_in(kind)):
        words = re.sub(rf"(?<![\w\[]){struct.__name__}(?![\w\]])", _anchor(struct), words)
    return words


def _fields(kind: type[Any]) -> str:
    rows = [
        (_code(field.encode_name), _typed(field.type), _code(default_words(field)) or "required")
        for field in structs.fields(kind)
    ]
    return _table(("field", "type", "default"), rows) if rows else "No fields.\n"


def _meaning(kind: type[Any]) -> str:
    return re.sub(r"\n {4}", "\n", (kind.__doc__ or "").strip())


def _requests() -> Iterator[str]:
    yield "## Requests\n"
    for service in dict.fromkeys(verb.service for verb in VERBS):
        yield f"### {service}\n"
        verbs = [verb for verb in VERBS if verb.service == service]
        yield _table(
            ("subject", "request", "value of the reply", "meaning"),
            ((_code(verb.subject), _typed(verb.request), _typed(verb.reply), verb.meaning) for verb in verbs),
        )
        yield "".join(_example(verb) for verb in verbs)


def _example(verb: VerbSpec) -> str:
    return f"- `{verb.noun}.{verb.verb}`: `{verb.example}`\n"


def _listener() -> Iterator[str]:
    yield "## On loopback\n"
    yield _LISTENER
    rows = (
        (_code(f"{route.method} {route.path}"), route.meaning, _told(route), _code(route.answer)) for route in ROUTES
    )
    yield _table(("route", "meaning", "told", "answer"), rows)


def _told(route: RouteSpec) -> str:
    session = ["a session"] if route.signed_in else []
    return ", ".join([*session, *filter(None, [_code(route.fields)])])


def _channels() -> Iterator[str]:
    yield "## Other subjects\n"
    yield _table(
        ("subject", "messages", "stream", "published by", "consumed by", "meaning"),
        (
            (
                _code(channel.address),
                ", ".join(_code(name_of(kind)) for kind in channel.messages),
                _code(channel.stream or ""),
                channel.publishers,
                channel.consumers,
                channel.meaning,
            )
            for channel in CHANNELS
        ),
    )
    yield "Parameters: " + "; ".join(f"`{{{name}}}` {meaning}" for name, meaning in PARAMETERS.items()) + ".\n"
    yield "Examples:\n"
    yield "".join(f"- `{channel.address}`: `{channel.example}`\n" for channel in CHANNELS if channel.example)


def _messages(golden: Path) -> Iterator[str]:
    yield "## Commits and their events, commands\n"
    yield _COMMIT
    for kind in tagged_types():
        yield f"### {kind.__name__}\n"
        yield f"`{name_of(kind)}`: {_meaning(kind)}\n"
        yield _fields(kind)
        yield f"Example: `{(golden / f'{name_of(kind)}.json').read_text().strip()}`\n"


def _shapes() -> Iterator[str]:
    yield "## Shapes\n"
    seen: dict[type[Any], None] = {}
    roots = [*public_shapes(), *(kind for verb in VERBS for kind in (verb.request, verb.reply)), *tagged_types()]
    for root in roots:
        seen.update(dict.fromkeys(structs_in(root)))
    for kind in sorted(set(seen) - set(tagged_types()), key=lambda struct: struct.__name__):
        yield f"### {kind.__name__}\n"
        yield _meaning(kind) + "\n"
        tag = kind.__struct_config__.tag
        if tag:
            yield f'Told apart by `"{kind.__struct_config__.tag_field}":"{tag}"`.\n'
        yield _fields(kind)


def _streams() -> Iterator[str]:
    yield "## Streams\n"
    rows = [
        (_code(s.name), ", ".join(map(_code, s.config["subjects"])), s.config["retention"], s.owner, s.meaning)
        for s in STREAMS
    ]
    yield _table(("stream", "subjects", "retention", "written by", "meaning"), rows)
    yield "## Durable consumers\n"
    yield _table(
        ("consumer", "stream", "pulled by", "meaning"),
        ((_code(c.name), _code(c.stream), c.owner, c.meaning) for c in CONSUMERS),
    )


def _errors() -> Iterator[str]:
    yield "## Error codes\n"
    yield "The exit code is that of a command line that ends with this error.\n"
    yield _table(
        ("code", "class", "meaning", "hint", "exit code"),
        (
            (_code(code), kind.error_class, kind.message, kind.hint, kind.exit_code)
            for code, kind in sorted(CATALOGUE.items())
        ),
    )


def _limits() -> Iterator[str]:
    yield "## Limits\n"
    named = {name: value for name, value in vars(limits).items() if name.isupper()}
    yield _table(("limit", "value"), ((_code(name), f"{value:,}") for name, value in named.items()))


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield _table(
        ("metric", "kind", "labels", "meaning"),
        ((_code(m.name), m.kind, ", ".join(m.labels), m.meaning) for m in METRICS),
    )
