"""Measurements for developers; `htdag bench` measures the whole system."""
