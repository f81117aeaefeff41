"""The approval aggregate, pure: a gate, who may answer it, and what became of it."""
