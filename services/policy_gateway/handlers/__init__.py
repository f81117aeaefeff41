"""The request verbs of policy-gateway."""
