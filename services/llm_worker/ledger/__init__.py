"""The ledger: what every LLM call may cost, what it cost, and the limits that hold for all workers together.

`decider` and `state` are the pure aggregate; `book` is this worker's copy of it, with group commit and the calls that
wait for a limit; `cashier` stands between calls and book; `orphans` sees to what dead workers left; `views` answers.

Invariant: at each sequence of the log, what is paid and what is reserved of a budget is no more than its limit.
"""
