"""policy-gateway: every tool call of every agent passes here.

Owns the aggregates `policy` (versions of the roles), `audit` (the chain of decisions) and `call` (one effect per task,
attempt and call). The decision is pure (`decision`), the sandbox makes it true (`sandbox`, `tools`), the audit
remembers it (`audit`). Invariants: a denied call has no effect; a decision is stored before its effect; a repeated
call of a task gets the recorded answer; nothing a call started outlives it.
"""
