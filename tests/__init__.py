"""All tests. A package, so that no stranger's top-level `tests` is ever imported in its place."""
