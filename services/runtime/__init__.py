"""The shared actor runtime: event store, actors, bus, timers, life cycle. It knows no service.

It is the only package that imports nats. A service is a Decider (pure) plus an EffectRunner (the edge), hosted by
`actor.ActorHost` and wired in the service's own `service.build`.
"""

from services.runtime.later import import_later

import_later("aiohttp")  # before the first import of nats
