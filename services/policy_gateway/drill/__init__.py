"""The attack drill: the five attacks of the seed and their variants, run for real in a throw-away workspace."""
