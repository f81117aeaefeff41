"""policy-gateway: every tool call of every agent passes here.

Owns the aggregates `policy` (versions of the roles), `audit` (the chain of decisions) and `call` (one effect per task,
attempt and call). Consumes `htdag.v1.tool.<role>.<tool>`, and `….task` for calls that must belong to a task, and reads
the logs of runs; publishes commits on `htdag.v1.evt.policy-gateway.<aggregate>.<id>`. The decision is pure
(`decision`), `toolkit` gives it its turn in a workspace, the sandbox makes it true (`sandbox`, `tools`), the audit
remembers it (`audit`). Invariants: a denied call has no effect; a decision is stored before its effect; a repeated
call of a task gets the recorded answer; a call ends with its task, and nothing it started outlives it; what cannot be
judged leaves a trace too; files of a workspace are changed by one call at a time.
"""
