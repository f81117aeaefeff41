"""Failures of the surroundings: they say nothing about the message that met them."""

from typing import Final

WAITED_OUT: Final = frozenset(
    {"nats_unavailable", "storage_full", "stream_missing", "mailbox_full", "timeout", "jetstream_unavailable"}
)
"""Codes under which a message is innocent and comes again for as long as they last."""
