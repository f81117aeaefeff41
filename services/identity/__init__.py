"""Identity: proof of who speaks, for people and agents, and human approval of dangerous actions.

It owns the aggregates user (accounts and every attempt) and approval (gates). It answers the verbs of `user`, `agent`,
`login` and `approval`, takes requests for approval from its durable mailbox and puts answers into the run's. Set-up,
reset and unlock have no subject at all: they are served by HTTP on loopback only (`services.identity.local`).

Invariants: at most five judged attempts a minute and account, whoever asks and wherever; a code is accepted once; a
failure is stored before it is answered; only a human's fresh code releases a gate; no code and no secret in the clear
is ever stored, logged, traced or counted.
"""
