"""Texts without secrets, by example; tests/property/test_secrets_stay_inside.py has the stories."""

import pytest

from services.runtime.redaction import masked, masked_tree


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://operator:s3cret@127.0.0.1:4222", "nats://operator:***@127.0.0.1:4222"),
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://a:s3cret@one:4222,nats://b:s3cret@two:4222", "nats://a:***@one:4222,nats://b:***@two:4222"),
        ("nats://operator:s3c/ret@one:4222", "nats://operator:***@one:4222"),
        ("nats://s3crettoken1234567@one:4222", "nats://***@one:4222"),
    ],
)
def test_urls_of_brokers_are_shown_without_passwords_and_tokens(url: str, shown: str) -> None:
    assert masked(url) == shown


SECRET = "Hunter2xyz"


@pytest.mark.parametrize(
    "url",
    ["https://{}@github.com/me/x.git", "http://{}@h/", "nats://{}@h:4222", "HTTPS://{}@h", "see https://{}@h/x now"],
)
@pytest.mark.parametrize("token", [SECRET, "abcdefgh", "x"])
def test_who_stands_alone_in_front_of_a_host_is_a_token(url: str, token: str) -> None:
    assert masked(url.format(token)) == url.format("***")


@pytest.mark.parametrize(
    "line",
    [
        "mysql -u root -p{}",
        "/usr/bin/mysqldump -h db -p{} shop",
        "sudo mysql -p{}",
        "docker exec db mysql -p{}",
        "docker login -u me -p {} registry.example",
        "docker login -p{}",
        "az login --service-principal -u x -p {}",
        "sshpass -p{} ssh me@host",
        "sshpass -p {} ssh -p 22 me@host",
        "mongosh -u me -p {}",
        "redis-cli -a {} ping",
        "ldapsearch -x -w {}",
        "7z x -p{} a.7z",
        "unzip -P {} a.zip",
        "curl -u me:{} https://x",
        "curl -ume:{} https://x",
        "curl --user me:{} https://x",
        "curl --user=me:{} https://x",
        "unknown-program -p{}",
        "keytool -storepass {}",
    ],
)
def test_passwords_of_programs_are_known_by_their_options(line: str) -> None:
    words = line.format(SECRET).split()
    assert SECRET not in str(masked_tree({"cmd": words}))
    assert masked_tree({"cmd": words})["cmd"][0] == words[0]
    assert SECRET not in masked(line.format(SECRET))
    script = f"cd /code && {line.format(SECRET)} | tail -n 3"
    for shell in (["sh", "-c", script], ["bash", "-c", f"sh -c '{script}'"]):
        shown = masked_tree({"cmd": shell})["cmd"]
        assert SECRET not in str(shown)
        assert "cd /code && " in shown[2]
        assert " tail -n 3" in shown[2]


def test_a_password_with_a_name_in_its_word_is_hidden_too() -> None:
    words = ["openssl", "pkcs12", "-passin", f"pass:{SECRET}", "-in", "a"]
    assert masked_tree({"cmd": words})["cmd"][4:] == ["-in", "a"]
    assert SECRET not in str(masked_tree({"cmd": words})) + masked(" ".join(words))


def test_a_password_in_quotes_is_hidden_whole() -> None:
    assert masked("sh -c \"mysql -p'two words' -h db\"") == 'sh -c "mysql -p*** -h db"'
    assert masked("sshpass -p 'two words' ssh -p 22 h") == "sshpass -p '***' ssh -p 22 h"
    assert masked('curl -u "me:two words" https://x') == 'curl -u "me:***" https://x'


@pytest.mark.parametrize(
    "name",
    ["pwd", "PWD", "db_pwd", "Passwort", "passwort", "kennwort", "DB_KENNWORT", "mot_de_passe", "motDePasse", "mdp",
     "contraseña", "contrasen\u0303a", "Contrasena", "senha", "parola", "wachtwoord", "hasło", "heslo", "lösenord",
     "пароль", "密码", "パスワード", "비밀번호"],
)  # fmt: skip
def test_names_of_passwords_are_known_in_other_languages(name: str) -> None:
    assert masked_tree({name: SECRET}) == {name: "***"}
    for text in (f"{name}={SECRET}", f"{name}: {SECRET}", f'{{"{name}": "{SECRET}"}}', f"x --{name} {SECRET}"):
        assert SECRET not in masked(text)
        assert SECRET not in str(masked_tree({"cmd": ["sh", "-c", text]}))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h/cb?code=4/0AfJohXn&state=xyz", "https://h/cb?code=***&state=***"),
        ("/cb?state=xyz&code=abc", "/cb?state=***&code=***"),
        ("https://h/cb?code=0a1b2c3d4e5f&x=1", "https://h/cb?code=***&x=1"),
        ("https://h/cb?a=1&state=af0ifjsldkj", "https://h/cb?a=1&state=***"),
        ("https://h/cb?code_verifier=abcdef#x", "https://h/cb?code_verifier=***#x"),
        ("https://h/cb#state=af0ifjsldkj7&SAMLResponse=PHNh", "https://h/cb#state=***&SAMLResponse=***"),
    ],
)
def test_what_a_login_carries_in_a_url_is_hidden(url: str, shown: str) -> None:
    assert masked(url) == shown
    assert masked_tree({"url": url}) == {"url": shown}
