"""Run options within their bounds, judged before a plan is stored: afterwards nobody waits for the refusal."""

import math

from contracts.errors import Rejected
from contracts.ledger import BUDGET_MAX
from contracts.limits import (
    LLM_OUTPUT_TOKENS_MAX,
    LLM_TIMEOUT_MAX_MS,
    PARALLEL_MAX,
    REWORKS_PER_TASK_MAX,
    RUN_TIMEOUT_MAX_MS,
)
from contracts.run import RunOptions
from contracts.subjects import check_id, check_model_id


def accept_options(options: RunOptions) -> RunOptions:
    """The same options. Raises Rejected("bad_request") naming the field, or bad_id for model or workspace."""
    bounds: tuple[tuple[str, float | None, float, float], ...] = (
        ("parallel", options.parallel, 1, PARALLEL_MAX),
        ("timeout_ms", options.timeout_ms, 1, RUN_TIMEOUT_MAX_MS),
        ("llm_timeout_ms", options.llm_timeout_ms, 1, LLM_TIMEOUT_MAX_MS),
        ("max_tokens", options.max_tokens, 1, LLM_OUTPUT_TOKENS_MAX),
        ("temperature", options.temperature, 0, 2),
        ("reworks_max", options.reworks_max, 0, REWORKS_PER_TASK_MAX),
        ("budget_usd_micros", options.budget_usd_micros, 0, BUDGET_MAX),
        ("budget_tokens", options.budget_tokens, 0, BUDGET_MAX),
    )
    for field, value, low, high in bounds:
        if value is not None and not (math.isfinite(value) and low <= value <= high):
            raise Rejected(
                "bad_request",
                f"options.{field} must be {low} to {high}",
                field=f"options.{field}",
                min=low,
                max=high,
                requested=value,
            )
    if options.model is not None:
        check_model_id(options.model)
    if options.workspace is not None:
        check_id(options.workspace, "options.workspace")
    return options
