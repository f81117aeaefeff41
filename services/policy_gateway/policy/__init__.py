"""The versions of the policy, and what another one would have decided."""
