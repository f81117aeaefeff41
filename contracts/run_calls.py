"""LLM calls of a run, as its log tells them."""

from typing import Any

import msgspec

from contracts.llm import LlmRequest, OutputRef, Usage


class LlmRequested(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.requested.v1"):
    """An LLM call was decided. `request` is sent as it stands here, also after a crash."""

    task_id: str
    attempt: int
    step: str
    request: LlmRequest
    deadline_at_ms: int


class LlmAnswered(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.answered.v1"):
    """The answer of one LLM call, as the journal has it. Unknown cost is None, never zero.

    An error has `usage` when its provider had begun to answer: that is paid. `cached` is free.
    """

    task_id: str
    attempt: int
    step: str
    corr_id: str
    output: str = ""
    model_used: str = ""
    usage: Usage | None = None
    cost_usd_micros: int | None = None
    finish_reason: str = ""
    latency_ms: float = 0.0
    error: dict[str, Any] | None = None
    tool_calls: list[Any] = []
    output_ref: OutputRef | None = None
    cached: bool = False

    @property
    def paid(self) -> bool:
        """Whether the call counts in sums: refused ones, those that failed unheard, and recorded ones do not."""
        return not self.cached and (self.error is None or self.usage is not None)


class LlmSettled(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.settled.v1"):
    """A call is over that its task did not wait for any more: stopped, timed out, or answered too late.

    Nothing of the task changes by it but what it cost: nothing without `usage`; unknown cost is None, never zero.
    It may come when the run has ended.
    """

    task_id: str
    corr_id: str
    model_used: str = ""
    usage: Usage | None = None
    cost_usd_micros: int | None = None

    @property
    def paid(self) -> bool:
        """Whether the call counts in sums."""
        return self.usage is not None


class LlmAwaited(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type", tag="llm.awaited.v1"):
    """The answer is late, but a worker lives: the call may wait for a slot there, so it gets a later deadline, once."""

    task_id: str
    corr_id: str
    deadline_at_ms: int
