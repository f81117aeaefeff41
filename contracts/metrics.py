"""Every metric htdag exposes: name, kind, labels, meaning. Dashboards and services are checked against this list.

Labels have few values: never an id of a run, task, epic or user.
"""

from typing import Final, Literal, NamedTuple


class MetricSpec(NamedTuple):
    """One metric family; `name` is the exposed one (counters end in _total)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()
    """Of a histogram whose convention says so; else they follow from its name."""


_GEN_AI: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
_GEN_AI_SECONDS: Final = tuple(round(0.01 * 2**power, 2) for power in range(14))
_GEN_AI_TOKENS: Final = tuple(float(4**power) for power in range(14))

METRICS: Final[tuple[MetricSpec, ...]] = (
    MetricSpec("htdag_build_info", "gauge", ("version", "service"), "always 1"),
    MetricSpec("htdag_events_appended_total", "counter", ("stream", "type"), "events in acknowledged commits"),
    MetricSpec("htdag_commits_total", "counter", ("stream", "outcome"), "commits: stored, conflict, failed"),
    MetricSpec("htdag_commit_seconds", "histogram", ("stream",), "append to acknowledgement"),
    MetricSpec("htdag_commit_batch_size", "histogram", ("stream",), "commits sent together"),
    MetricSpec("htdag_actors_active", "gauge", ("aggregate",), "actors in memory"),
    MetricSpec("htdag_mailbox_messages", "gauge", ("aggregate",), "messages waiting in mailboxes"),
    MetricSpec("htdag_actor_conflicts_total", "counter", ("aggregate",), "turns decided again after a lost race"),
    MetricSpec("htdag_dead_letters_total", "counter", ("stream", "reason"), "messages put aside"),
    MetricSpec("htdag_requests_total", "counter", ("service", "verb", "outcome"), "request verbs answered"),
    MetricSpec("htdag_request_seconds", "histogram", ("service", "verb"), "request to reply"),
    MetricSpec("htdag_projection_lag_messages", "gauge", ("projection",), "messages a projection is behind"),
    MetricSpec("htdag_tasks_total", "counter", ("outcome",), "tasks that ended"),
    MetricSpec("htdag_effect_seconds", "histogram", ("kind", "outcome"), "bodies and Lua stages run by an executor"),
    MetricSpec("htdag_runs_total", "counter", ("outcome",), "runs that ended"),
    MetricSpec("htdag_runs_running", "gauge", (), "runs this executor holds in memory and that are not over"),
    MetricSpec("htdag_lua_executions_total", "counter", ("stage", "outcome"), "Lua calls"),
    MetricSpec("htdag_lua_seconds", "histogram", ("stage",), "duration of a Lua call"),
    MetricSpec("htdag_llm_requests_total", "counter", ("provider", "model", "outcome"), "LLM calls that ended"),
    MetricSpec("htdag_llm_seconds", "histogram", ("provider", "model"), "duration at the provider"),
    MetricSpec("htdag_llm_tokens_total", "counter", ("provider", "model", "type"), "tokens: input, output, abandoned"),
    MetricSpec("htdag_llm_tokens_streamed_total", "counter", ("model",), "chunks published"),
    MetricSpec("htdag_llm_tokens_dropped_total", "counter", ("model",), "chunks that could not be published"),
    MetricSpec("htdag_llm_cost_usd_micros_total", "counter", ("provider", "model"), "known cost in micro-dollars"),
    MetricSpec("htdag_llm_retries_total", "counter", ("provider", "model"), "calls made once more after a failure"),
    MetricSpec("htdag_llm_cost_unknown_total", "counter", ("provider", "model"), "answers whose price is unknown"),
    MetricSpec(
        "htdag_llm_disputed_tokens_total", "counter", ("provider", "model"), "tokens reported beyond the worst case"
    ),
    MetricSpec(
        "htdag_llm_disputed_usd_micros_total", "counter", ("provider", "model"), "their price; no budget counts it"
    ),
    MetricSpec("htdag_llm_breaker_state", "gauge", ("model",), "0 closed, 1 half open, 2 open"),
    MetricSpec("htdag_llm_breaker_transitions_total", "counter", ("model", "to"), "changes of a breaker, written here"),
    MetricSpec("htdag_llm_queue_depth", "gauge", (), "calls taken here that wait for a place at their model"),
    MetricSpec("htdag_llm_requests_pending", "gauge", (), "stored requests that no worker has taken yet"),
    MetricSpec("htdag_llm_wait_seconds", "histogram", ("provider", "model"), "wait for a place at the model"),
    MetricSpec("htdag_llm_limiter_queue_depth", "gauge", (), "calls of this worker that wait for a limit"),
    MetricSpec("htdag_llm_limiter_wait_seconds", "histogram", ("outcome",), "wait for a reservation: granted, or code"),
    MetricSpec("htdag_llm_ledger_spent_usd_micros", "gauge", (), "paid today (UTC) by all workers, micro-dollars"),
    MetricSpec("htdag_llm_ledger_reserved_usd_micros", "gauge", (), "reserved today by all workers, micro-dollars"),
    MetricSpec("htdag_llm_ledger_open", "gauge", (), "reservations of all workers that are neither paid nor released"),
    MetricSpec("htdag_llm_orphans_total", "counter", ("outcome",), "reservations of dead workers: paid, released"),
    MetricSpec("htdag_llm_in_flight", "gauge", (), "calls at a provider now"),
    MetricSpec("htdag_llm_cached_total", "counter", ("model",), "requests answered by content, free"),
    MetricSpec("htdag_llm_reused_total", "counter", ("model",), "requests answered from the journal, free"),
    # By the GenAI conventions of OpenTelemetry, under the names that its exporter for Prometheus gives them.
    MetricSpec(
        "gen_ai_client_operation_duration_seconds",
        "histogram",
        (*_GEN_AI, "error_type"),
        "duration of a call at its provider",
        _GEN_AI_SECONDS,
    ),
    MetricSpec(
        "gen_ai_client_token_usage",
        "histogram",
        (*_GEN_AI, "gen_ai_token_type"),
        "tokens of a call: input, output; money has counters of its own",
        _GEN_AI_TOKENS,
    ),
    MetricSpec(
        "gen_ai_client_operation_time_to_first_chunk_seconds",
        "histogram",
        _GEN_AI,
        "from the call to the first piece of its output",
        _GEN_AI_SECONDS,
    ),
    MetricSpec(
        "gen_ai_client_operation_time_per_output_chunk_seconds",
        "histogram",
        _GEN_AI,
        "between two pieces of an output",
        _GEN_AI_SECONDS,
    ),
    MetricSpec("htdag_tool_calls_total", "counter", ("role", "tool", "outcome"), "tool calls: ok, or the code"),
    MetricSpec("htdag_tool_call_seconds", "histogram", ("tool",), "tool calls that were allowed, queue included"),
    MetricSpec("htdag_tool_calls_running", "gauge", (), "tool calls under way"),
    MetricSpec("htdag_workspace_calls_waiting", "gauge", (), "tool calls that wait for their turn in a workspace"),
    MetricSpec("htdag_workspace_wait_seconds", "histogram", ("access",), "waits for a turn: shared, alone"),
    MetricSpec("htdag_policy_denials_total", "counter", ("role", "attack"), "refused calls by kind of attack"),
    MetricSpec("htdag_policy_decide_seconds", "histogram", (), "duration of the decision of a tool call"),
    MetricSpec("htdag_policy_version", "gauge", (), "version of the policy in force; 0 is the shipped one"),
    MetricSpec("htdag_audit_entries_total", "counter", ("type",), "entries stored in the audit chain"),
    MetricSpec("htdag_security_raised_total", "counter", ("kind",), "security events: role_mismatch, denial_burst"),
    MetricSpec("htdag_totp_attempts_total", "counter", ("purpose", "result"), "attempts: accepted, or why not"),
    MetricSpec("htdag_account_lockouts_total", "counter", (), "locks after too many failures"),
    MetricSpec("htdag_approvals_open", "gauge", (), "gates that wait for a human"),
    MetricSpec("htdag_approvals_total", "counter", ("outcome",), "gates that were answered or ran out"),
    MetricSpec(
        "htdag_forged_messages_total", "counter", ("stream",), "messages in streams of facts that nobody may write"
    ),
    MetricSpec("htdag_nats_reconnects_total", "counter", (), "connections regained"),
)

BY_NAME: Final[dict[str, MetricSpec]] = {metric.name: metric for metric in METRICS}
