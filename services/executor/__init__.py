"""executor: owns the run aggregate and carries runs out.

Consumes `htdag.v1.cmd.executor.run.>`, fired timers of runs, strategies of the planner and `llm.health`;
publishes commits on `htdag.v1.evt.executor.run.<id>` and LLM requests on `htdag.v1.llm.req.<model>`.
Invariants: a task starts only after all its dependencies completed; an effect is requested only after the commit that
decided it; each task completes at most once; whatever waits has a deadline in the log.
"""
