"""Everything that crosses a service boundary, as data.

Messages (msgspec structs with explicit, versioned type tags), subjects, streams, error codes, limits
and metric names. This package imports the standard library and msgspec only: it knows no broker, no
clock and no service. `subjects.md`, `contracts/schemas` and `contracts/asyncapi.json` are generated from it by
`scripts/generate`; a test fails when they are stale.
"""
