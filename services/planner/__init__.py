"""The planner: from a goal to a graph of tasks, and from tasks to the run that carries them out.

It owns the aggregates epic (goals planned, tasks enqueued) and strategy (versioned Lua scripts). It answers the verbs
of `goal`, `epic`, `task` and `strategy`, hands runs to the executor by durable commands, and reads the executor's
events to tell what became of them. Strategy scripts run in killable Lua children, never in this process.

Invariants: what is accepted is handed over, also after a crash; a plan has no cycle and no unknown dependency; a
strategy version never changes; nothing that does not compile is stored.
"""
