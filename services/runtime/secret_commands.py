"""Where the words of a command hold a secret without a name that says so: `mysql -pSECRET`, `curl -u me:SECRET`.

What an option means depends on the program: `-p` is a port, a package, a folder. So this is a table of programs; one
that is missing is a new line. Pure, one look at each word.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

Takes = Literal["glued", "either"]
"""`glued`: only `-pSECRET`, as `-p` alone asks for it; `either`: the next word too."""


def _programs(*lines: tuple[str, str, Takes]) -> Mapping[str, Mapping[str, Takes]]:
    table: dict[str, dict[str, Takes]] = {}
    for names, options, takes in lines:
        for name in names.split():
            table.setdefault(name, {}).update(dict.fromkeys(options.split(), takes))
    return table


_PROGRAMS: Final = _programs(
    ("mysql mysqladmin mysqlbinlog mysqlcheck mysqldump mysqlimport", "-p", "glued"),
    ("mysqlpump mysqlsh mysqlshow mysqlslap", "-p", "glued"),
    ("mariadb mariadb-admin mariadb-binlog mariadb-check mariadb-dump mariadb-import", "-p", "glued"),
    ("mongo mongosh mongodump mongoexport mongoimport mongorestore cqlsh rabbitmqadmin", "-p", "either"),
    ("sshpass login", "-p", "either"),
    ("redis-cli", "-a", "either"),
    ("ldapadd ldapdelete ldapmodify ldappasswd ldapsearch ldapwhoami", "-w", "either"),
    ("mosquitto_pub mosquitto_sub sqlcmd bcp zip unzip", "-P", "either"),
    ("7z 7za 7zr 7zz rar unrar", "-p", "glued"),
    ("keytool", "-storepass -keypass", "either"),
    ("openssl", "-passin -passout -pass", "either"),
)  # fmt: skip
"""`login` is the word of many: `docker login`, `az login`."""
_ANYWHERE: Final = "login"
"""A subcommand; it adds to what its program has."""
_IN_FRONT: Final = frozenset({"sshpass"})
"""Programs that stand in front of another command, whose options are its own."""
_USERS: Final = frozenset({"u", "user", "userpwd", "proxyuser", "userpass"})
"""Options whose value may be `name:password`."""
_USER_GLUED: Final = frozenset({"curl"})
"""Programs that take `-uname:password` as one word."""
_DASHES: Final = str.maketrans("", "", "-_")
_ENDS: Final = frozenset(";&|\n()")
_UNKNOWN_CHARS_MIN: Final = 6
_SIGNS: Final = str.maketrans("", "", "!@#$%^&*+?~")
_NOTHING: Final[Mapping[str, Takes]] = {}


def secret_begins(words: Sequence[str]) -> list[int]:
    """For each word the place in it from which on it is a secret, -1 where it is none."""
    begins: list[int] = []
    options, program = _NOTHING, ""
    following: Literal["secret", "user", ""] = ""
    for word in words:
        begin = 0 if following == "secret" and word else _password_of(word) if following == "user" else -1
        following = ""
        if begin >= 0:
            begins.append(begin)
            continue
        if not word or _ENDS.issuperset(word):
            options, program = _NOTHING, ""
        elif word[0] != "-":
            name = word.rpartition("/")[2].lstrip("$(`{").removesuffix(".exe").lower()
            own = _PROGRAMS.get(name)
            if own is not None:
                options = {**options, **own} if name == _ANYWHERE else own
            elif program in _IN_FRONT:
                options = _NOTHING
            program = name if own is not None or name in _USER_GLUED else program
        elif options.get(word) == "either":
            following = "secret"
        elif word.translate(_DASHES).lower() in _USERS:
            following = "user"
        else:
            begin = _glued(word, options, program)
        begins.append(begin)
    return begins


def _glued(word: str, options: Mapping[str, Takes], program: str) -> int:
    """From where on an option holds the secret itself."""
    for option in options:
        if len(word) > len(option) and word.startswith(option) and not word.startswith("--"):
            return len(option) + (word[len(option)] == "=" and options[option] == "either")
    name, sign, value = word.partition("=")
    if sign and name.translate(_DASHES).lower() in _USERS:
        password = _password_of(value)
        return len(name) + 1 + password if password >= 0 else -1
    if program in _USER_GLUED and word.startswith("-u"):
        password = _password_of(word[2:])
        return 2 + password if password >= 0 else -1
    return 2 if word.startswith("-p") and _like_password(word[2:]) else -1


def _password_of(word: str) -> int:
    """Where the password of `name:password` begins; two numbers are a user and a group."""
    return word.find(":") + 1 if ":" in word and not word.replace(":", "").isdigit() else -1


def _like_password(text: str) -> bool:
    """Whether what an unknown program takes with `-p` is neither a word nor a port, a path or a pattern."""
    bare = text.translate(_SIGNS)
    if len(text) < _UNKNOWN_CHARS_MIN or not bare.isalnum():
        return False
    return any(map(str.isdigit, bare)) and any(map(str.isalpha, bare))


class ShellWord(NamedTuple):
    """A word of a line as a shell reads it, without the quotes around it, and where it begins in the line."""

    text: str
    begin: int


# A quote that nobody closes goes to the end: so nothing is ever looked at twice.
_WORD: Final = re.compile(
    r"[;&|()\n]+|(?:[^\s;&|()\"'\\]|\\(?:.|\Z)|\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)|'[^']*+(?:'|\Z))++", re.DOTALL
)
_HINT: Final = re.compile(r"(?:\A|[\s\"'])-{1,2}[A-Za-z]")


def has_options(line: str) -> bool:
    """Whether a text may be a command at all: only then its words are worth a look."""
    return _HINT.search(line) is not None


def shell_words(line: str) -> Iterator[ShellWord]:
    """The words of a line; what separates commands is a word too."""
    for found in _WORD.finditer(line):
        text, begin = found.group(), found.start()
        if text[0] in "\"'":
            text, begin = text[1:].removesuffix(text[0]), begin + 1
        yield ShellWord(text, begin)
