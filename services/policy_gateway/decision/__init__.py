"""The decision: `decide(roles, role, tool, args, opts, facts)` gives `Allow(plan)` or `Deny(code, rule, detail)`.

Pure, total, quick. `roles` holds the policy as data (`roles.toml`), one module per tool its grammar, `plans` what an
allowed call may do: tools carry out the plan and never look at the request again.
"""
