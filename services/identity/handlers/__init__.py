"""The edge of identity on NATS: verbs of users, agents and gates. What needs loopback has no verb here."""
