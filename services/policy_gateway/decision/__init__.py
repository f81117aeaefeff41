"""The decision: `decide(roles, principal, tool, args, opts, facts)`, pure and total."""
