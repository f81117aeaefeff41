"""Codes of a broker of our own, which is short of something."""
