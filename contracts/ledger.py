"""The ledger of llm-worker: what each LLM call may cost at most, what it cost, and whose budget that was.

Money is whole micro-dollars, sums are exact, and a cost that nobody knows is None, never zero. One aggregate holds it
all; a reservation stands in the log before its call begins, and ends there once: paid or released.
"""

from typing import Final, Literal

import msgspec

LEDGER_ID: Final = "all"
HEADER_BUDGET: Final = "Htdag-Budget"
"""On a durable LLM request: a Charge as JSON, written by the executor."""
GRANTS_MAX: Final = 10_000
"""The largest limit of requests per minute: so many grants are remembered."""
BUDGET_MAX: Final = 1 << 53
ScopeKind = Literal["task", "run", "epic"]


class Budget(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task, a run or an epic may use in all its calls; None is no limit. The id of a task is RUN/TASK."""

    kind: ScopeKind
    id: str
    usd_micros: int | None = None
    tokens: int | None = None

    @property
    def key(self) -> str:
        """Its name in the ledger."""
        return f"{self.kind}/{self.id}"


class Charge(msgspec.Struct, frozen=True, omit_defaults=True):
    """On whose account a call goes, beside the run and node that its request names."""

    task_id: str = ""
    epic_id: str = ""
    budgets: list[Budget] = []


# Events: `htdag.v1.evt.llm-worker.ledger.all` ---------------------------------------------------------------------


class Abandoned(msgspec.Struct, frozen=True, omit_defaults=True):
    """Askings of one model whose answers nobody heard, since whoever asked is gone: their worst case, all together.

    Their provider may bill them all the same; `usd_micros` None is a price that nobody knows.
    """

    provider: str
    model: str
    tokens: int
    usd_micros: int | None


class LlmReserved(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.reserved.v1"):
    """A call may begin. `tokens` and `usd_micros` are its worst case; None is a price that nobody knows.

    `budgets` are the keys of all budgets it is held against; after `expires_at_ms` the call cannot be under way.
    `billed_by` is the provider that may bill the asking although nobody hears its answer; empty: none does. `abandoned`
    is held besides; `day` is the one it counts for where that is not the day of `at_ms`.
    """

    corr_id: str
    at_ms: int
    worker_id: str
    model: str
    tokens: int
    usd_micros: int | None
    request_seq: int
    expires_at_ms: int
    run_id: str = ""
    node_id: str = ""
    task_id: str = ""
    epic_id: str = ""
    budgets: list[str] = []
    billed_by: str = ""
    day: str = ""
    abandoned: list[Abandoned] = []


class LlmTakenOver(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.taken_over.v1"):
    """Another worker carries the same call out, since the first one is gone: it is paid once.

    `abandoned` are all askings of it that may be billed although nobody heard their answer: from now on they are held
    beside the new one, and paid with it. With `looks`, no provider is asked yet: the first worker may only have
    been silent, and the journal may have its answer by now. If not, this event follows again without `looks`.
    """

    corr_id: str
    at_ms: int
    worker_id: str
    request_seq: int
    expires_at_ms: int
    abandoned: list[Abandoned] = []
    looks: bool = False


class LlmPaid(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.paid.v1"):
    """A call was answered, and cost this. It counts for `day` (UTC): the one in which it was reserved.

    `estimated` when the provider was stopped before it had counted. Where the cost turned out to be unknown,
    `charged_usd_micros` is what budgets count instead: all that was reserved. What a provider reported beyond its
    reservation is `disputed_*`: a fact for whoever compares invoices, which no sum counts. `abandoned` are askings of
    the call that nobody heard the answer of: they are a part of the cost, and their tokens count beside the answer's.
    """

    corr_id: str
    at_ms: int
    worker_id: str
    day: str
    model: str
    provider: str
    prompt_tokens: int
    completion_tokens: int
    cost_usd_micros: int | None
    request_seq: int
    run_id: str = ""
    node_id: str = ""
    task_id: str = ""
    epic_id: str = ""
    budgets: list[str] = []
    estimated: bool = False
    charged_usd_micros: int | None = None
    disputed_tokens: int = 0
    disputed_usd_micros: int = 0
    abandoned: list[Abandoned] = []

    @property
    def tokens(self) -> int:
        """All tokens that count: those of the answer, and of askings whose answer nobody heard."""
        return self.prompt_tokens + self.completion_tokens + sum(one.tokens for one in self.abandoned)


class LlmReleased(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.released.v1"):
    """A reserved call cost nothing. `reason` is the code of its error, or why it has none.

    `orphaned`: its worker is gone; `repriced`: whoever goes on reserves by other prices; `given_back`: its worker
    leaves it to another one before anybody was asked.
    """

    corr_id: str
    at_ms: int
    worker_id: str
    reason: str


class LlmReused(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.reused.v1"):
    """A call was asked for once more and got the answer that the journal holds: nothing is paid for that."""

    corr_id: str
    at_ms: int
    worker_id: str


LedgerEvent = LlmReserved | LlmTakenOver | LlmPaid | LlmReleased | LlmReused


# What queries take and answer --------------------------------------------------------------------------------------


class LedgerQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which calls to show: of one id, run, task, epic or day (`2026-11-28`); the newest `limit` of them."""

    corr_id: str | None = None
    run_id: str | None = None
    epic_id: str | None = None
    day: str | None = None
    limit: int = 100
    task_id: str | None = None


class LedgerRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One call in the ledger. `reserved_usd_micros` is what it was held for; `cost_usd_micros` counts when paid.

    `answers` is how often whoever asked was answered: once for the payment, and once for each time it was asked again.
    `abandoned_*` are the part of what was held or paid that is for askings whose answer nobody heard.
    """

    corr_id: str
    status: Literal["reserved", "paid", "released"]
    at: str
    model: str = ""
    run_id: str = ""
    node_id: str = ""
    task_id: str = ""
    epic_id: str = ""
    worker_id: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd_micros: int | None = None
    reserved_usd_micros: int | None = None
    reserved_tokens: int = 0
    reason: str = ""
    estimated: bool = False
    answers: int = 0
    abandoned_tokens: int = 0
    abandoned_usd_micros: int | None = 0


class LedgerView(msgspec.Struct, frozen=True, omit_defaults=False):
    """Sums over every call that fits, and the newest of them. `calls` are paid; `cost_unknown` of them unpriced."""

    calls: int
    tokens: int
    cost_usd_micros: int
    cost_unknown: int
    reserved: int
    reserved_usd_micros: int
    rows: list[LedgerRow]


class ModelLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """One model's own limits and what is used of them; 0 is no limit."""

    model: str
    limit_usd_micros: int = 0
    spent_usd_micros: int = 0
    reserved_usd_micros: int = 0
    requests_per_minute: int = 0
    requests_used: int = 0
    concurrent: int = 0
    in_flight: int = 0


class WorkerLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """The limits that one worker goes by: of all calls under the model "", and of models with limits of their own."""

    worker_id: str
    limits: list[ModelLimits]


class LimitsView(msgspec.Struct, frozen=True, omit_defaults=False):
    """The limits of all workers together and what is used of them; 0 is no limit. `queue` waits in all workers.

    They are those of the worker that answers; `disagreeing` are workers that go by others: then no limit is sure.
    """

    day: str
    limit_usd_micros: int
    spent_usd_micros: int
    reserved_usd_micros: int
    resets_at: str
    requests_per_minute: int
    requests_used: int
    concurrent: int
    in_flight: int
    queue: int
    tokens: int
    calls: int
    cost_unknown: int
    allow_unpriced: bool
    models: list[ModelLimits]
    disagreeing: list[WorkerLimits] = []


class Estimate(msgspec.Struct, frozen=True, omit_defaults=False):
    """What a request would use: its likely prompt tokens, and the worst case that would be reserved.

    `cost_usd_micros_max` is None when the price is unknown; `refusal` is the code it would be refused with now.
    """

    model_id: str
    model_used: str
    provider: str
    prompt_tokens: int
    prompt_tokens_max: int
    completion_tokens_max: int
    cost_usd_micros: int | None
    cost_usd_micros_max: int | None
    refusal: str | None = None


class QueueAsk(msgspec.Struct, frozen=True, omit_defaults=True):
    """The question of one worker to all: how many calls wait at your limiter?"""

    worker_id: str


class QueueTold(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to it, with the limits that the worker goes by, as in `WorkerLimits`."""

    worker_id: str
    waiting: int
    limits: list[ModelLimits] | None = None
