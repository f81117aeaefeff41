"""The strategy aggregate: versioned Lua scripts, one version of which may be active.

A version is never changed. Going back walks the trail of versions that were active; before the first one stands none.
"""
