"""The broker's users in its own configuration language, from `contracts.permissions`."""

import json
from collections.abc import Callable, Sequence
from typing import Final

from contracts.permissions import USERS
from contracts.rights import User

_INDENT: Final = "  "


def users_conf(login: Callable[[User], str], indent: str = "") -> str:
    """The block `users: [...]`. `login` gives what stands for a user's key or password: a literal or a variable."""
    entries = "".join(_entry(user, login(user), indent + _INDENT) for user in USERS)
    return f"{indent}users: [\n{entries}{indent}]\n"


def _entry(user: User, login: str, indent: str) -> str:
    inner = indent + _INDENT
    who = f'user: "{user.name}", password: {login}' if user.password else f"nkey: {login}"
    rights = user.rights
    lines = [
        f"{indent}# {user.name}: {user.meaning}",
        f"{indent}{{ {who}, permissions: {{",
        f"{inner}publish: {{{_lists(rights.publish, rights.publish_not, inner)}{inner}}}",
        f"{inner}subscribe: {{{_lists(rights.subscribe, rights.subscribe_not, inner)}{inner}}}",
        f"{indent}}} }}",
    ]
    return "\n".join(lines) + "\n"


def _lists(allow: Sequence[str], deny: Sequence[str], indent: str) -> str:
    lists = {"allow": allow, "deny": deny}
    return "\n" + "".join(_list(name, subjects, indent + _INDENT) for name, subjects in lists.items() if subjects)


def _list(name: str, subjects: Sequence[str], indent: str) -> str:
    rows = "".join(f"{indent}{_INDENT}{json.dumps(subject)}\n" for subject in subjects)
    return f"{indent}{name}: [\n{rows}{indent}]\n"
