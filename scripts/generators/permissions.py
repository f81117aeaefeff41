"""infra/nats/permissions.conf: every user of htdag with its rights, for brokers that operators run themselves."""

from services.console.key_files import variable
from services.console.supervision.users import users_conf

_HEAD = """\
# Made by scripts/generate from contracts/permissions.py; changes here are lost. server.conf and the cluster's files
# include it. The environment holds the users' public keys and one password: `htdag bus keys --out DIR` makes them.
"""


def render() -> str:
    """The file's text."""
    return _HEAD + users_conf(lambda user: f"${variable(user)}")
