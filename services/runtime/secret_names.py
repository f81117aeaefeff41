"""Names that secrets stand under: `password`, `X-Api-Key`, `--token`, `Passwort`. A new name is a new word. Pure."""

import unicodedata
from typing import Any, Final
from urllib.parse import unquote

NAME_CHARS_MAX: Final = 128


def _bare(name: str) -> str:
    """A name without its `-`, `_` and `.`, without accents, in small letters."""
    bare = name.translate(_SEPARATORS).lower()
    if bare.isascii():
        return bare
    return "".join(part for part in unicodedata.normalize("NFKD", bare) if not unicodedata.combining(part))


_SEPARATORS: Final = str.maketrans("", "", "-_. \"'$[]{}/:")
_NAMES: Final = frozenset(
    {
        "auth", "bearer", "clave", "jwt", "mdp", "otp", "otps", "pass", "passcode", "pat", "pin", "pins", "proxyauth",
        "psk", "sig", "xauth",
    }
)  # fmt: skip
"""Names that are secret as they stand; as the end of another name they would be everyday words."""
_PLACE: Final = "pwd"
"""A password, but where its value is an absolute path: there it is the working folder of a shell."""
_ENDS: Final = (
    "accesskey", "accountkey", "apikey", "apppassword", "appkey", "authkey", "authorization", "clientkey",
    "connectionstring", "cookie", "credential", "deploykey", "encryptionkey", "jsessionid", "keypass", "masterkey",
    "nkey", "nkeyseed", "passin", "passout", "passphrase", "passwd", "password", "phpsessid", "privatekey", "pwd",
    "secret", "secretkey", "secretkeybase", "secretkeyid", "sessionid", "sessionkey", "sharedkey", "signature",
    "signingkey", "sshkey", "storagekey", "storepass", "subscriptionkey", "token", "totp", "webhookurl",
)  # fmt: skip
"""How names of secrets end, without their `-`, `_` and `.`: `X-Api-Key`, `aws_secret_access_key`, `clientSecret`."""
_ENDS_ELSEWHERE: Final = (
    "passwort", "kennwort", "losungswort", "geheimnis", "motdepasse", "contraseña", "contrasenya", "senha",
    "palavrapasse", "parola", "wachtwoord", "hasło", "heslo", "jelszó", "lösenord", "passord", "adgangskode",
    "salasana", "şifre", "пароль", "κωδικός", "סיסמה", "密码", "密碼", "パスワード", "비밀번호",
)  # fmt: skip
"""The word for password in other languages."""
_NAME_ENDS: Final = tuple(_bare(end) + plural for end in (*_ENDS, *_ENDS_ELSEWHERE) for plural in ("", "s"))
_NONE: Final = ("no-", "no_")
"""How options say that there is none: `--no-password`."""


def secret_name(name: str) -> bool:
    """Whether what stands under this name is a secret."""
    if len(name) > NAME_CHARS_MAX:
        name = name[-NAME_CHARS_MAX:]
    if "%" in name:
        name = unquote(name)
    if name.lower().lstrip("-").startswith(_NONE):
        return False
    bare = _bare(name)
    return bare in _NAMES or bare.endswith(_NAME_ENDS)


def secret_under(name: str, value: Any) -> bool:
    """Whether `value` is a secret because it stands under `name`. How many tokens there were is none."""
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, str) and value.startswith("/") and name.lower().endswith(_PLACE):
        return False
    counted = not isinstance(value, str) or value.isdigit()
    return secret_name(name) and not (counted and name.lower().rstrip().endswith("tokens"))
