"""The listener on loopback: set-up, verification, disabling, reset and unlock. None of it has a subject on NATS."""
