"""The console: the command `htdag`, the embedded instance (`up`), the live view of a run, and the doctor.

It owns no aggregate. It speaks NATS to the services like anyone else, through `services.runtime.bus`, and never
imports a service: `serve` finds one by name. Data goes to stdout, progress to stderr; `--json` everywhere.
"""
