"""What a secret looks like, and texts without it: the one place that logs, traces, events and the audit ask.

A secret is known by its value where this process holds it (`held_secrets`), by the name that it stands under
(`password`, `X-Api-Key: …`, `--token …`, `?api_key=…`), by its own shape (`ghp_…`, a JWT, a private key), or by its
place in a command or a URL. Shapes are a table here, names in `secret_names.py`, programs in `secret_commands.py`, URLs
in `secret_queries.py`: a new kind is a new line. Only the secret is taken out; the text around it stays readable. Pure
but for what is held. Every step is linear in the text: what a pattern may look at before it fails is bounded, so nobody
can make a log line expensive.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from services.runtime import held_secrets
from services.runtime.secret_commands import has_options, secret_begins, shell_words
from services.runtime.secret_names import NAME_CHARS_MAX, secret_name, secret_under
from services.runtime.secret_queries import secret_values

HIDDEN: Final = held_secrets.HIDDEN

# Shapes ---------------------------------------------------------------------------------------------------------------


class Shape(NamedTuple):
    """How one kind of secret looks. It is looked for where `hint` stands; `shows` takes its place."""

    hint: str
    pattern: "re.Pattern[str]"
    shows: str = HIDDEN
    only_if: Callable[[str], bool] | None = None


def _any_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _like_base64(text: str) -> bool:
    return _any_digit(text) or "=" in text or any(map(str.isupper, text))


def _random_mix(text: str) -> bool:
    """Whether capitals, small letters and digits are mixed as only chance does; a hash of hex digits is not."""
    capitals, smalls = sum(map(str.isupper, text)), sum(map(str.islower, text))
    return capitals >= 5 and smalls >= 5 and sum(map(str.isdigit, text)) >= 2


_KEY_BEGIN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----"
_KEY_END: Final = r"-----END [A-Z0-9 ]{0,40}?PRIVATE KEY(?: BLOCK)?-----"
# Without something that must follow a long run, a pattern never comes back from far: that keeps all of them linear.
SHAPES: Final = (
    Shape("PRIVATE KEY", re.compile(rf"{_KEY_BEGIN}.*?(?:{_KEY_END}|\Z)", re.DOTALL)),
    Shape("otpauth", re.compile(r"(otpauth(?:-migration)?:)[^\s\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    Shape("hooks.slack", re.compile(r"(hooks\.slack(?:-gov)?\.com/)[^\s\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    Shape("/api/webhooks/", re.compile(r"(/api/webhooks/)[^\s\"'<>]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # The password of a URL, with an @ in it or a slash; a long name before the @ is a token.
    Shape("@", re.compile(r"(://[^/\s?#@:]{0,256}:)[^/\s?#\"'<>]+@"), rf"\1{HIDDEN}@"),
    Shape("@", re.compile(r"(://[^/\s?#@:]{0,256}:)(?!\d{1,5}/)[^\s@\"'<>]{1,256}@"), rf"\1{HIDDEN}@"),
    Shape("@", re.compile(r"(://)[^/\s?#@:]{16,256}@"), rf"\1{HIDDEN}@", _any_digit),
    Shape("@", re.compile(r"((?:https?|nats|tls|wss?)://)[^/\s?#@:\"'<>]{1,256}@", re.IGNORECASE), rf"\1{HIDDEN}@"),
    Shape("ey", re.compile(r"eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){0,4}")),
    Shape("github_pat_", re.compile(r"github_pat_[A-Za-z0-9_]{20,}")),
    Shape("gh", re.compile(r"gh[a-z]_[A-Za-z0-9_]{16,}")),
    Shape("gl", re.compile(r"gl[a-z]{2,6}-[A-Za-z0-9_.-]{16,}"), only_if=_any_digit),
    Shape("npm_", re.compile(r"npm_[A-Za-z0-9]{20,}")),
    Shape("pypi-", re.compile(r"pypi-[A-Za-z0-9_-]{32,}")),
    Shape("AIza", re.compile(r"AIza[A-Za-z0-9_-]{30,}")),
    Shape("ya29.", re.compile(r"ya29\.[A-Za-z0-9_-]{16,}")),
    Shape("GOCSPX-", re.compile(r"GOCSPX-[A-Za-z0-9_-]{16,}")),
    Shape("k_", re.compile(r"[a-z]{1,2}k_(?:live|test)_[A-Za-z0-9]{8,}")),
    Shape("whsec_", re.compile(r"whsec_[A-Za-z0-9+/=]{16,}")),
    Shape("sk-", re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{16,}"), only_if=_any_digit),
    Shape("xox", re.compile(r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}")),
    Shape("xapp-", re.compile(r"xapp-[A-Za-z0-9-]{10,}")),
    Shape("a", re.compile(r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}")),
    Shape("S", re.compile(r"S[AUONCX][A-Z2-7]{56}")),
    Shape("SG.", re.compile(r"SG\.[A-Za-z0-9_-]{16,}(?:\.[A-Za-z0-9_-]*)?")),
    Shape("hf_", re.compile(r"hf_[A-Za-z0-9]{20,}")),
    Shape("_v1_", re.compile(r"do[opr]_v1_[a-f0-9]{20,}")),
    Shape("AGE-SECRET", re.compile(r"AGE-SECRET-KEY-1[A-Z0-9]{20,}")),
    # A secret of an authenticator as it is shown to people, and an AWS secret key: 32 and 40 characters, nothing else.
    Shape("", re.compile(r"(?<![A-Za-z0-9])[A-Z2-7]{32}(?![A-Za-z0-9=])"), only_if=_any_digit),
    Shape("", re.compile(r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{40}(?![A-Za-z0-9+/=_.-])"), only_if=_random_mix),
    Shape("", re.compile(r"(?<![A-Za-z0-9+])[A-Za-z0-9+]{40}(?![A-Za-z0-9+=_.-])"), only_if=_random_mix),
    Shape("earer", re.compile(r"(\bbearer\s{1,4})[^\s\"',;]{4,}", re.IGNORECASE), rf"\1{HIDDEN}"),
    Shape("asic ", re.compile(r"(\bbasic )[A-Za-z0-9+/=_-]{6,}", re.IGNORECASE), rf"\1{HIDDEN}", _like_base64),
)  # fmt: skip
_HINTED: Final = tuple((shape, shape.hint.lower()) for shape in SHAPES)
SHAPED_CHARS_MIN: Final = 15
"""No secret that is one word and no URL is known by its shape when it is shorter."""
_NAME_CHAR: Final = r"[\w.%\u0300-\u036f-]"
"""Letters of any language; an accent may be a character of its own."""
_NAMED: Final = re.compile(
    # A name is tried once, at its beginning, and given up as a whole.
    rf"(?<!{_NAME_CHAR})(?P<name>{_NAME_CHAR}++)[\\\"'\]]{{0,4}}[ \t]{{0,4}}(?P<sign>[:=])>?[ \t]{{0,4}}\\{{0,3}}"
)
_OPTION: Final = re.compile(
    rf"(?<!{_NAME_CHAR})(?P<name>--{_NAME_CHAR}++)(?P<gap>[ \t]{{1,4}})"
    r"(?P<value>\"[^\"]*+\"?|'[^']*+'?|[^\s\"';&|]+)"
)
"""An option and its value in one text, as a shell would take them apart."""
_QUOTED: Final = re.compile(r"\"(?:[^\"\\]|\\.)*+(?:\"|\Z)|'(?:[^'\\]|\\.)*+(?:'|\Z)", re.DOTALL)
_UNQUOTED: Final = re.compile(r"[^\s&\"']+")
_LINE_NAMES: Final = ("authorization", "cookie", "cookies")
"""Headers whose whole line is the secret, blanks included."""
_TAIL: Final = re.compile(rf"{_NAME_CHAR}{{1,128}}\Z")
_SCHEMES: Final = frozenset({"bearer", "basic", "digest", "negotiate", "token"})


PAIR: Final = 2
PART_CHARS_MIN: Final = 4
"""Shorter secrets are not looked for inside of other words."""
NESTED_MAX: Final = 3
"""How deep commands are looked for in words of commands: `bash -c 'sh -c "…"'`."""


class Masking:
    """Takes secrets out of texts and remembers them, so that they are found again where nothing tells what they are.

    At most FOUND_MAX are remembered; `overflow` says that there were more.
    """

    FOUND_MAX: Final = 256

    def __init__(self) -> None:
        self.found: set[str] = set()
        self.overflow = False

    def text(self, text: str) -> str:
        """`text` without the secrets in it."""
        if len(text) < PART_CHARS_MIN:
            return text
        text = held_secrets.without_held(text)
        shown = self._assigned(text)
        if "--" in shown:
            shown = _OPTION.sub(self._option, shown)
        if "-" in shown:
            shown = self._commands(shown, NESTED_MAX)
        shown = self._spans(shown, secret_values(shown))
        if len(text) < SHAPED_CHARS_MIN and "://" not in text and len(text.split(None, 1)) < PAIR:
            return shown
        folded = shown.lower()
        for shape, hint in _HINTED:
            if hint in folded:
                shown = shape.pattern.sub(partial(self._shaped, shape), shown)
        return shown

    def words(self, words: Sequence[Any], other: Callable[[Any], Any]) -> list[Any]:
        """The words of a command, or a name and its value, without secrets; `other` says what is shown of no text."""
        shown: list[Any] = []
        secret_next = in_key = False
        begins = secret_begins([word if isinstance(word, str) else "" for word in words])
        for place, word in enumerate(words):
            if not isinstance(word, str):
                hidden = secret_next and not isinstance(word, dict | list)
                shown.append(self.hide(word) if hidden else other(word))
                secret_next = False
                continue
            if in_key:
                in_key = re.search(_KEY_END, word) is None
                shown.append(self.hide(word))
                continue
            in_key = "PRIVATE KEY" in word and _key_open(word)
            shown.append(self._word(word, 0 if secret_next else begins[place]))
            # A secret may look like an option, and an option may be without its value: both are hidden.
            bare = word.strip()
            secret_next = _announces(bare) or (len(words) == PAIR and place == 0 and secret_name(bare))
        return shown

    def _word(self, word: str, begin: int) -> str:
        if begin >= 0:
            return word[:begin] + self.hide(word[begin:])
        option, sign, value = word.partition("=")
        if sign and word.startswith("-") and secret_under(option, value):
            return f"{option}={self.hide(value)}"
        return self.text(word)

    def anywhere(self, text: str) -> str:
        """`text` without the secrets that were found before, wherever they stand in it, cut off at its end included."""
        shown = text
        for secret in sorted(self.found, key=len, reverse=True):
            if len(secret) < PART_CHARS_MIN:
                shown = HIDDEN if shown.strip() == secret else shown
            elif secret in shown:
                shown = shown.replace(secret, HIDDEN)
            elif shown.endswith("…"):
                shown = _without_beginning(shown, secret)
        return shown

    def hide(self, secret: Any) -> str:
        """Remember a secret; what is shown in its place."""
        if isinstance(secret, Mapping | list | tuple):
            for part in secret.values() if isinstance(secret, Mapping) else secret:
                self.hide(part)
            return HIDDEN
        text = str(secret).strip().strip("\"'")
        if text and text != HIDDEN:
            if len(self.found) < self.FOUND_MAX:
                self.found.add(text)
            elif text not in self.found:
                self.overflow = True
        return HIDDEN

    def _shaped(self, shape: Shape, found: "re.Match[str]") -> str:
        kept = found.group(1) if shape.shows.startswith(r"\1") else ""
        secret = found.group()[len(kept) :].removesuffix("@")
        if shape.only_if is not None and not shape.only_if(secret):
            return found.group()
        self.hide(secret)
        return found.expand(shape.shows)

    def _option(self, found: "re.Match[str]") -> str:
        value = found["value"]
        if not secret_under(found["name"], value.strip("\"'")):
            return found.group()
        return f"{found['name']}{found['gap']}{self.hide(value)}"

    def _commands(self, text: str, nested: int) -> str:
        """`text` without what stands as a secret in a command, or in a command in one of its words."""
        if not has_options(text):
            return text
        words = [*shell_words(text)]
        pieces: list[str] = []
        at = 0
        for word, begin in zip(words, secret_begins([word.text for word in words]), strict=True):
            if begin >= 0:
                secret = word.text[begin:]
                shown = self.hide(secret)
                start = word.begin + begin
            elif nested and " " in word.text:
                secret, start = word.text, word.begin
                shown = self._commands(secret, nested - 1)
            else:
                continue
            pieces.extend((text[at:start], shown))
            at = start + len(secret)
        return "".join((*pieces, text[at:])) if pieces else text

    def _spans(self, text: str, spans: Sequence[tuple[int, int]]) -> str:
        """`text` with these parts hidden."""
        pieces: list[str] = []
        at = 0
        for begin, end in spans:
            pieces.extend((text[at:begin], self.hide(text[begin:end])))
            at = end
        return "".join((*pieces, text[at:])) if pieces else text

    def _assigned(self, text: str) -> str:
        """`text` with the values of secret names hidden: headers, parameters, settings, in any notation."""
        if "=" not in text and ":" not in text:
            return text
        pieces: list[str] = []
        at = 0
        while found := _NAMED.search(text, at):
            end = found.end()
            pieces.append(text[at:end])
            at = self._hide_value(text, found, pieces) if secret_name(found["name"]) else end
        return "".join((*pieces, text[at:])) if pieces else text

    def _hide_value(self, text: str, found: "re.Match[str]", pieces: list[str]) -> int:
        """Hide what stands behind a secret name; where the text goes on."""
        at, name = found.end(), found["name"]
        quoted = _QUOTED.match(text, at)
        if quoted and not secret_under(name, quoted.group()[1:-1] or "x"):
            return at
        if quoted:
            pieces.append(f"{text[at]}{self.hide(quoted.group())}{text[at]}")
            return quoted.end()
        value = _UNQUOTED.match(text, at)
        if value and not secret_under(name, value.group().strip(",;)]}")):
            return at
        if found["sign"] == ":" or name.lower().endswith(_LINE_NAMES):
            return self._hide_line(text, found.start(), at, pieces)
        if value is None:
            return at
        pieces.append(self.hide(value.group()))
        return value.end()

    def _hide_line(self, text: str, start: int, at: int, pieces: list[str]) -> int:
        """Hide a header's value: to the end of the line, or of the quotes around the header."""
        around = text[start - 1] if start and text[start - 1] in "\"'" else "\n"
        end = text.find(around, at)
        end = len(text) if end < 0 else end
        line_end = text.find("\n", at, end)
        end = end if line_end < 0 else line_end
        line = text[at:end]
        if line.strip():
            pieces.append(self.hide(line))
            for part in line.split():
                if part.lower() not in _SCHEMES:
                    self.hide(part)
        return end


def masked(text: str) -> str:
    """`text` without the secrets in it."""
    return Masking().text(text)


def masked_tree(value: Any, masking: Masking | None = None, depth_max: int = 32) -> Any:
    """JSON data without secrets, in keys as well as in values; what lies deeper than `depth_max` is left out."""
    return _tree("", value, masking or Masking(), depth_max)


def _tree(name: str, value: Any, masking: Masking, depth: int) -> Any:
    if secret_under(name, value):
        return masking.hide(value)
    if isinstance(value, str):
        return masking.text(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        return {masking.text(key): _tree(name, item, masking, depth - 1) for key, name, item in named_items(value)}
    if isinstance(value, list | tuple | set | frozenset):
        return masking.words(list(value), lambda item: _tree(name, item, masking, depth - 1))
    return value


_PAIR_NAMES: Final = ("name", "key", "header")
_PAIR_VALUES: Final = frozenset({"value", "val", "values"})


def named_items(value: Mapping[Any, Any]) -> Iterator[tuple[str, str, Any]]:
    """Each key, the name that its item stands under, and the item: in `{"name": "X-Api-Key", "value": …}` the name."""
    named = next((name for name in map(value.get, _PAIR_NAMES) if isinstance(name, str)), "")
    for key, item in value.items():
        yield str(key), named if named and key in _PAIR_VALUES else str(key), item


def _announces(word: str) -> bool:
    """Whether the next word is a secret: `--token`, `-H Authorization:`, `Bearer`, `//registry/:_authToken`."""
    if word.lower().rstrip(":") in _SCHEMES:
        return True
    if not (word.startswith(("-", "//")) or word.endswith((":", "="))):
        return False
    found = _TAIL.search(word[-NAME_CHARS_MAX - 3 :].rstrip(":= "))
    return found is not None and secret_name(found.group())


def _without_beginning(text: str, secret: str) -> str:
    """`text`, which was cut, without the beginning of a secret that was cut with it."""
    whole = text[:-1]
    for length in range(min(len(secret), len(whole)), PART_CHARS_MIN - 1, -1):
        if whole.endswith(secret[:length]):
            return f"{whole[:-length]}{HIDDEN}…"
    return text


def _key_open(word: str) -> bool:
    """Whether a private key begins in this word and does not end in it."""
    last = None
    for last in re.finditer(_KEY_BEGIN, word):  # noqa: B007  # the last one counts
        pass
    return last is not None and re.search(_KEY_END, word[last.end() :]) is None
