"""executor: owns the run aggregate and carries runs out.

Consumes `htdag.v1.cmd.executor.run.>`, fired timers of runs, strategies of the planner and `llm.health`;
publishes commits on `htdag.v1.evt.executor.run.<id>`, LLM requests on `htdag.v1.llm.req.<model>`, tool calls on
`htdag.v1.tool.<role>.<tool>` and gates in the mailbox of identity.
Invariants: a task starts only after all its dependencies completed; an effect is requested only after the commit that
decided it; each task completes at most once; a gated attempt starts only after a release that identity signed;
whatever waits has a deadline in the log.
"""
