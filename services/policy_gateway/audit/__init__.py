"""The audit: every decision and every end, in one hash chain, signed now and then."""
