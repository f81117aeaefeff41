"""`htdag llm`: models, and single questions to them, over the same public subjects that any NATS client uses."""

import asyncio
import hashlib
import json
import secrets
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from contracts import subjects
from contracts.errors import Rejected
from contracts.limits import (
    LLM_OUTPUT_TOKENS_DEFAULT,
    LLM_TEMPERATURE_DEFAULT,
    LLM_TIMEOUT_GRACE_MS,
)
from contracts.llm import HEADER_DEADLINE, LlmToken
from contracts.reply import RemoteRejected
from services.console.asking import ask_pool, first_answer
from services.console.big_values import whole
from services.console.commands import llm_models
from services.console.connection import Console, connected
from services.console.input_file import STDIN, read_text
from services.console.ledger_text import estimate_text, ledger_text, limits_text
from services.console.live_replay import replayed_live
from services.console.llm_request_file import request_of
from services.console.model_edge import ask_model
from services.console.options import DEFAULTS, Common
from services.console.output import Output, columns, money, plain
from services.runtime.clock import SystemClock

if TYPE_CHECKING:
    from services.runtime.bus import Message

app = App(
    name="llm",
    help="Ask a model; look at models, workers, tokens and paid answers.\n\nFor example:\n    htdag llm models",
    help_format="plaintext",
)
app.command(llm_models.models)
app.command(llm_models.reset)
WORKER_COLUMNS: Final = ("WORKER", "STATE", "CALLS", "WAITING", "LONGEST", "LIMITED", "LAST BEAT", "MODELS")
_TOKEN: Final = msgspec.json.Decoder(LlmToken).decode


@app.command
async def ask(
    model: str,
    text: str,
    /,
    *,
    stream: Annotated[bool, Parameter(negative="")] = False,
    system: str | None = None,
    max_tokens: int = LLM_OUTPUT_TOKENS_DEFAULT,
    temperature: float = LLM_TEMPERATURE_DEFAULT,
    timeout: float = 60.0,  # noqa: ASYNC109  a wish of the user, not a way to cancel
    seed: int | None = None,
    cache: Annotated[bool, Parameter(negative="")] = False,
    corr_id: str | None = None,
    allow_unpriced: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Ask a model one question (`-` reads it from standard input) and print its
    answer.

    For example:
        htdag llm ask smollm2 "What is a DAG?" --stream --max-tokens 60

    Parameters
    ----------
    model
        Model id; `htdag llm models` lists them.
    text
        The question.
    stream
        Print the answer while it is made.
    system
        A system message before it.
    max_tokens
        Longest answer.
    temperature
        0 is the most predictable.
    timeout
        Seconds the call may take.
    seed
        Seed, for models that take one.
    cache
        The recorded answer of the same question will do; it costs nothing.
    corr_id
        The same id again is the same paid call: the answer comes from the journal.
    allow_unpriced
        Also when nobody knows the price and money is limited: tokens are counted.
    """
    question = read_text(text) if text == STDIN else text
    system_part = [{"role": "system", "content": system}] if system else []
    call = corr_id or f"ask-{secrets.token_hex(6)}"
    request = {
        "run_id": "ask",
        # The same id is the same call: then it is also the same node, and the journal has it.
        "node_id": call if subjects.ID.match(call) else hashlib.sha256(call.encode()).hexdigest(),
        "corr_id": call,
        "model_id": model,
        "input": {"messages": [*system_part, {"role": "user", "content": question}]},
        "params": {
            "stream": stream,
            "temperature": temperature,
            "max_tokens": max_tokens,
            "timeout_ms": int(timeout * 1000),
            **({} if seed is None else {"seed": seed}),
            **({"cache": True} if cache else {}),
            **({"allow_unpriced": True} if allow_unpriced else {}),
        },
    }
    async with connected(common) as console:
        answer, streamed = await _ask(console, subjects.check_model_id(model), request, stream, timeout, common.output)
    bill = "cost unknown" if answer.get("cost_usd_micros") is None else money(answer["cost_usd_micros"])
    if answer.get("abandoned_usd_micros"):
        bill += f" ({money(answer['abandoned_usd_micros'])} of it abandoned)"
    if not common.json:
        common.output.line("" if streamed else answer["output"])
        used = answer.get("usage", {}).get("total_tokens", 0)
        common.output.note(f"{answer['model_used']}  {used} tokens  {bill}  {answer['latency_ms'] / 1000:.1f}s")
        return
    common.output.value(answer)


@app.command
async def workers(*, common: Common = DEFAULTS) -> None:
    """List the workers by their heartbeats; one that missed three is dead, one that
    does not answer now is silent.

    Of its CALLS, those WAITING have no place at their model yet, and more workers would
    help them; LONGEST is how long the oldest of these waits. Those LIMITED wait for a
    limit that all workers share (`htdag llm limits`). The rest is at a model.

    For example:
        htdag llm workers
    """
    async with connected(common) as console:
        found = plain((await first_answer(lambda: console.call("llm-worker.llm.workers", {})))[0])
    rows = [
        (
            worker["worker_id"],
            common.output.state("silent" if worker.get("silent") else worker["status"]),
            worker["in_flight"],
            worker["waiting"],
            f"{worker['wait_ms'] / 1000:.1f}s" if worker["wait_ms"] else None,
            worker["limited"],
            worker["last_beat_at"],
            ",".join(worker["models"]),
        )
        for worker in found
    ]
    common.output.value(found, lambda _: columns(WORKER_COLUMNS, rows))


@app.command
async def limits(*, common: Common = DEFAULTS) -> None:
    """Show the limits of all workers together, and what is used of them now.

    For example:
        htdag llm limits
    """
    async with connected(common) as console:
        found = plain(await ask_pool(console, "limits", {}, common.output))
    common.output.value(found, limits_text)


@app.command
async def ledger(
    corr_id: str | None = None,
    /,
    *,
    corr: str | None = None,
    run: str | None = None,
    task: str | None = None,
    epic: str | None = None,
    day: str | None = None,
    limit: int = 20,
    common: Common = DEFAULTS,
) -> None:
    """Show what calls were held for and what they cost, and the exact sums.

    For example:
        htdag llm ledger --run auth-build-1 --task login
        htdag llm ledger --day 2026-11-28 --limit 100

    Parameters
    ----------
    corr_id
        Only this call.
    corr
        The same, as a flag.
    run
        Only calls of this run.
    task
        Only calls of tasks of this id; ids of tasks are their run's own.
    epic
        Only calls of this epic's runs.
    day
        Only calls of this day (UTC).
    limit
        How many of the newest calls are listed; the sums are over all.
    """
    if corr_id is not None and corr is not None and corr != corr_id:
        raise Rejected("bad_request", "two calls are named", field="corr", hint="say one of them")
    wishes = {
        "corr_id": corr_id or corr,
        "run_id": run,
        "task_id": task,
        "epic_id": epic,
        "day": day,
        "limit": limit,
    }
    async with connected(common) as console:
        asked = {key: value for key, value in wishes.items() if value is not None}
        found = plain(await ask_pool(console, "ledger", asked, common.output))
    common.output.value(found, lambda _: ledger_text(found, common.output))


@app.command
async def estimate(
    what: str,
    /,
    *,
    model: str | None = None,
    max_tokens: int | None = None,
    common: Common = DEFAULTS,
) -> None:
    """Say what a request would use and cost at most, before it is made.

    For example:
        htdag llm estimate request.json
        htdag llm estimate "What is a DAG?" --model claude-sonnet-4.5

    Parameters
    ----------
    what
        A request in a file that ends in .json (- is standard input), or a question.
    model
        Model id; a request may name its own.
    max_tokens
        Longest answer.
    """
    request = request_of(what, model, max_tokens)
    async with connected(common) as console:
        found = plain(await ask_pool(console, "estimate", request, common.output))
    common.output.value(found, estimate_text)


@app.command
async def tail(node: str, /, *, from_seq: int = 1, common: Common = DEFAULTS) -> None:
    """Print the tokens of a node that are still kept (15 minutes), from a number
    on.

    For example:
        htdag llm tail run-123.task-1 --from-seq 2

    Parameters
    ----------
    node
        RUN.NODE, as it stands in `llm.tokens.RUN.NODE`.
    from_seq
        First token.
    """
    run_id, _, node_id = node.partition(".")
    body = {"run_id": subjects.check_id(run_id, "run_id"), "node_id": subjects.check_id(node_id, "node_id")}
    async with connected(common) as console:
        tokens = plain(await ask_pool(console, "tail", {**body, "from_seq": from_seq}, common.output))
    if not tokens:
        text = f"no tokens of {node} are kept"
        hint = "they are kept for 15 minutes, and only of calls with `stream`"
        raise Rejected("not_found", text, hint=hint, node=node)
    if common.json:
        for token in tokens:
            common.output.value(token)
        return
    common.output.line("".join(token["chunk"] for token in tokens))


@app.command
async def replay(
    corr_id: str,
    /,
    *,
    run: str | None = None,
    node: str | None = None,
    live: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULTS,
) -> None:
    """Print a paid answer again, from the journal; nobody is asked and nothing is
    paid.

    For example:
        htdag llm replay c1

    Parameters
    ----------
    corr_id
        The id of the call.
    run
        Its run, which makes the search quicker.
    node
        Its node.
    live
        Ask the model once more, under a new id, and pay again; each of the two calls names the other. What is not
        answered within --wait goes on, and is in the journal then.
    """
    wishes = {"corr_id": corr_id, "run_id": run, "node_id": node}
    async with connected(common) as console:
        if live:
            reply = await replayed_live(console, corr_id, run, node)
        else:
            body = {key: value for key, value in wishes.items() if value}
            reply = await console.bus.call(subjects.rpc("llm-worker", "llm", "replay"), body, timeout_s=common.wait)
        answer = await whole(console.bus, reply)
    if live and isinstance(answer.get("error"), dict):
        raise RemoteRejected(answer["error"])
    common.output.value(answer, answer.get("output") or "")


async def _ask(
    console: Console, model: str, request: dict[str, Any], stream: bool, timeout_s: float, output: Output
) -> tuple[dict[str, Any], bool]:
    """Ask over the public edge: the first reply is the answer. Also whether tokens of it were printed before."""
    done = asyncio.Event()
    printed = False

    def take(message: "Message") -> None:
        nonlocal printed
        token = _TOKEN(message.data)
        printed = True
        if token.done:
            done.set()
        elif output.json:
            output.value(token)
        else:
            output.piece(token.chunk)

    subscription = None
    if stream:
        where = f"{subjects.LLM_TOKENS_EDGE}.{request['run_id']}.{request['node_id']}"
        subscription = await console.bus.subscribe(where, take)
    patience_s = timeout_s + LLM_TIMEOUT_GRACE_MS / 1000
    # Once nobody listens any more, the call is not worth its price: no worker begins it then.
    headers = {HEADER_DEADLINE: str(SystemClock().now_ms() + int(patience_s * 1000))}
    reply = await ask_model(console.bus, model, request, timeout_s=patience_s, headers=headers)
    answer: dict[str, Any] = json.loads(reply.data)
    if isinstance(answer.get("error"), dict):
        raise RemoteRejected(answer["error"])
    answer = await whole(console.bus, answer)
    if subscription is not None:
        await _finish(done)
        await subscription.unsubscribe()
    return answer, printed


async def _finish(done: asyncio.Event) -> None:
    """The answer comes behind the last token, but on another subscription: give that one a moment to end."""
    try:
        async with asyncio.timeout(1.0):
            await done.wait()
    except TimeoutError:
        return  # an answer from the journal has no tokens
