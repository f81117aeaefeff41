"""Bounds that more than one service relies on. Units stand last in each name."""

from typing import Final

ID_CHARS_MAX: Final = 64
GOAL_CHARS_MAX: Final = 20_000
TITLE_CHARS_MAX: Final = 20_000
TASKS_PER_RUN_MAX: Final = 50_000
DEPENDENCIES_PER_TASK_MAX: Final = 50_000
TASK_DEPTH_MAX: Final = 5
SUBTASKS_PER_TASK_MAX: Final = 64
ATTEMPTS_PER_TASK_MAX: Final = 10
REWORKS_PER_TASK_MAX: Final = 2
PARALLEL_DEFAULT: Final = 64
PARALLEL_MAX: Final = 10_000
PARTITIONS: Final = 8

ATOMIC_BELOW_COMPLEXITY: Final = 5.0
ROOT_COMPLEXITY: Final = 10.0
COMPLEXITY_MAX: Final = 100.0

RUN_TIMEOUT_DEFAULT_MS: Final = 3_600_000
RUN_TIMEOUT_MAX_MS: Final = 7 * 86_400_000
TASK_TIMEOUT_DEFAULT_MS: Final = 600_000
TASK_TIMEOUT_MAX_MS: Final = 86_400_000
LLM_TIMEOUT_DEFAULT_MS: Final = 30_000
LLM_TIMEOUT_MAX_MS: Final = 600_000
LLM_TIMEOUT_GRACE_MS: Final = 5_000
LLM_QUEUE_ALLOWANCE_MS: Final = 120_000
"""How much longer a run waits for a call, because it may wait for a slot, while some llm-worker lives."""
LUA_TIMEOUT_DEFAULT_MS: Final = 5_000
LUA_TIMEOUT_MAX_MS: Final = 30_000
LUA_MEMORY_MAX_BYTES: Final = 64 << 20
LUA_SOURCE_MAX_BYTES: Final = 1 << 20
NATS_TIMEOUT_DEFAULT_MS: Final = 30_000
RETRY_DELAY_FIRST_MS: Final = 500
RETRY_DELAY_OVERLOADED_MS: Final = 2_000
RETRY_DELAY_MAX_MS: Final = 30_000

TOOL_ROUNDS_PER_ATTEMPT_MAX: Final = 24
"""LLM calls of one attempt in a loop with tools: the last one has none, and must be answered."""
TOOL_CALLS_PER_ATTEMPT_MAX: Final = 64
TOOL_CALLS_PER_ANSWER_MAX: Final = 8
TOOL_RESULT_CHARS_MAX: Final = 20_000
"""How much of one result a model sees."""
TOOL_ASK_AGAIN_S: Final = 10.0
"""A tool call without an answer is asked for again under the same ids."""

LLM_MESSAGES_MAX: Final = 1_000
LLM_ATTEMPT_MAX: Final = 1_000_000
"""More than any task comes to: attempts that were not counted and resumed runs count on."""
LLM_OUTPUT_TOKENS_DEFAULT: Final = 4_000
LLM_OUTPUT_TOKENS_MAX: Final = 200_000
LLM_TEMPERATURE_DEFAULT: Final = 0.7
OUTPUT_REF_OVER_BYTES: Final = 1 << 20
"""An output that is larger goes to the object store, and the answer refers to it."""
OUTPUT_PREVIEW_CHARS: Final = 20_000
"""So much of it stands in the answer all the same."""
HEARTBEAT_INTERVAL_S: Final = 30.0
HEARTBEATS_MISSED_MAX: Final = 3
GONE_REMEMBERED_S: Final = 3600
"""So long after its last beat a worker of the pool is shown that died or said goodbye."""

TOOL_VALUE_MAX_BYTES: Final = 4 << 20
"""Of a tool's answer, what is kept and sent; more is cut, and said so."""
TOOL_ARGS_KEPT_MAX_BYTES: Final = 16 << 10
"""Arguments up to this size stand in the audit so that they can be judged again."""
POLICY_TEXT_MAX_BYTES: Final = 256 << 10
AUDIT_ROWS_MAX: Final = 1_000

REQUEST_BYTES_MAX: Final = 8 << 20
"""What a request may hold; the embedded broker's max_payload is this too."""
DEAD_LETTER_DELIVERIES_MAX: Final = 8
JSON_DEPTH_MAX: Final = 64

UNJUDGED_ENTRIES_PER_WINDOW_MAX: Final = 100
"""Calls that cannot be judged have so many audit entries of their own per window and gateway; the rest is counted."""
UNJUDGED_WINDOW_S: Final = 60.0
