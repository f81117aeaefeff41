"""Events of a circuit breaker, one per model. Each tells the whole of what counts, so the newest one is the state."""

import msgspec


class BreakerFailed(msgspec.Struct, frozen=True, omit_defaults=True, tag="breaker.failed.v1"):
    """A call failed in a way that counts, the `failures`th in a row."""

    model: str
    at_ms: int
    failures: int
    code: str
    worker: str = ""


class BreakerCleared(msgspec.Struct, frozen=True, omit_defaults=True, tag="breaker.cleared.v1"):
    """A call succeeded before there were too many failures: counting begins anew."""

    model: str
    at_ms: int
    worker: str = ""


class BreakerOpened(msgspec.Struct, frozen=True, omit_defaults=True, tag="breaker.opened.v1"):
    """No call of this model is begun before `until_ms`."""

    model: str
    at_ms: int
    until_ms: int
    code: str
    worker: str = ""


class BreakerProbed(msgspec.Struct, frozen=True, omit_defaults=True, tag="breaker.probed.v1"):
    """One call may try; if nothing is heard of it before `until_ms`, its worker is taken for dead."""

    model: str
    at_ms: int
    until_ms: int
    probe: str
    worker: str = ""


class BreakerClosed(msgspec.Struct, frozen=True, omit_defaults=True, tag="breaker.closed.v1"):
    """The probe was answered: calls flow again."""

    model: str
    at_ms: int
    worker: str = ""


BreakerEvent = BreakerFailed | BreakerCleared | BreakerOpened | BreakerProbed | BreakerClosed
