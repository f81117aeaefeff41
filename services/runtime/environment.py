"""Whose secret is whose: what looks like one stands in the environment of the service it is for, and of no other.

Provider keys are llm-worker's alone: a gateway, an executor or a broker that somebody takes over has none to give away.
Whoever starts a service leaves out what is not for it (`own`); a service that was started with more all the same, by
supervisord, systemd or a shell, begins anew without it (`begin_without_others`), so that /proc does not show it either.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Final

KEEPER: Final = "llm-worker"
"""The service that has the keys of providers, and programs of its own that may need any other."""
PROVIDER_KEYS: Final = tuple(
    f"{prefix}{name}_API_KEY" for prefix in ("", "HTDAG_LLM_WORKER__") for name in ("OPENAI", "ANTHROPIC", "GEMINI")
)
"""The variables by which llm-worker is told the keys of the providers it knows."""
SECTION_OF: Final = {
    "planner": "planner",
    "executor": "executor",
    "llm-worker": "llm_worker",
    "policy-gateway": "policy",
    "identity": "identity",
}
"""The section of the configuration that a service reads beside `core`."""
# Not redaction's rule: what that hides too much is read with ***, what this takes away too much breaks a service.
_SECRET: Final = re.compile(
    r"(?:\A|_)(?:API_?)?(?:KEYS?|TOKENS?|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASES?|CREDENTIALS?|AUTH)(?:_FILE)?\Z", re.I
)
_SETTING: Final = re.compile(r"HTDAG_([A-Z0-9]+(?:_[A-Z0-9]+)*)__")
_EVERYBODYS: Final = "NATS_"


def is_foreign(service: str, name: str) -> bool:
    """Whether a variable of this name holds a secret that is not for this service."""
    if not _SECRET.search(name) or name.startswith(_EVERYBODYS):
        return False
    setting = _SETTING.match(name)
    if setting is not None:
        return setting[1].lower() not in ("core", SECTION_OF.get(service, ""))
    return service != KEEPER


def foreign(service: str, env: Mapping[str, str]) -> list[str]:
    """The names of all such variables."""
    return sorted(name for name in env if is_foreign(service, name))


def own(service: str, env: Mapping[str, str]) -> dict[str, str]:
    """An environment without the secrets of others."""
    return {name: value for name, value in env.items() if not is_foreign(service, name)}


def begin_without_others(service: str) -> None:
    """Begin this process anew, under the same pid, if it was given secrets of others; else do nothing."""
    if foreign(service, os.environ):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], own(service, os.environ))
