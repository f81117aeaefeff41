"""Codes of the instance that runs: it is asked what is wrong, and keeps all it has."""
