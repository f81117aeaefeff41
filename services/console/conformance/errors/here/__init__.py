"""Codes that no instance can be brought to within seconds: the very functions are asked, in this process."""
