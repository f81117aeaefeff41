"""The run aggregate: one goal's graph of tasks, decided by pure functions (decide, advance, evolve, react)."""
