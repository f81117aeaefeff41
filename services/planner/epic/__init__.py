"""The epic aggregate: the goals planned under it and the tasks enqueued into it.

It decides what may run; the executor runs it. Every plan and batch is handed over by a durable command whose id is
derived from the event, so a hand-over that is repeated after a crash does no harm.
"""
