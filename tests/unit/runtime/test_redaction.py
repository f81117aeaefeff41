"""Texts without secrets, by example; tests/property/test_secrets_stay_inside.py has the stories."""

import pytest

from services.runtime.redaction import masked


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
