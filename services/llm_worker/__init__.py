"""llm-worker: the only door to language models.

Takes in `llm.req.<model_id>` and `ai.llm.request` from anyone (the edge), journals each valid request, and answers
every journaled request once: tokens while they come, then the final answer into the journal, then to whoever waits.
What was answered stands in the journal `htdag.v1.llm.resp.<run_id>.<node_id>`. Owns two aggregates: the ledger of money
and limits, which all workers write, and a breaker for each model.

Invariants: the first and only thing a caller's inbox receives is the answer; one `corr_id` is paid once, however often
the request comes and whenever a worker dies; a request is acknowledged only after its answer is in the journal.
"""
