"""Codes of a scratch instance: it is started for this, maltreated, and thrown away."""
