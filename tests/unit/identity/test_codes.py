"""What is a code, and which step it fits; what is a name."""

import pyotp
import pytest

from contracts.errors import Rejected
from services.identity import codes
from services.identity.account.state import step_of
from services.identity.names import checked_name, key_of

NOW_MS = 1_790_000_000_000
SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
STEP = step_of(NOW_MS)


@pytest.mark.parametrize("text", ["123456", " 123456\t", "123 456", "\n123 456 "])
def test_people_type_codes_with_a_space_here_and_there(text):
    assert codes.normalised(text) == "123456"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12345",
        "1234567",
        "12 3456",
        "123  456",
        "123\u00a0456",
        "\u0661\u0662\u0663\u0664\u0665\u0666",
        "\uff11\uff12\uff13\uff14\uff15\uff16",
        "12345a",
        "123-456",
        "+12345",
    ],
)
def test_everything_else_is_a_failed_attempt(text):
    assert codes.matched_step(SECRET, text, NOW_MS) is None


@pytest.mark.parametrize(("steps", "fits"), [(-2, None), (-1, -1), (0, 0), (1, None), (2, None)])
def test_this_step_and_the_one_behind_it_and_no_other(steps, fits):
    code = pyotp.TOTP(SECRET).at((STEP + steps) * 30)
    assert codes.matched_step(SECRET, code, NOW_MS) == (None if fits is None else STEP + fits)


def test_the_own_code_is_the_one_of_now():
    assert codes.matched_step(SECRET, codes.code_at(SECRET, NOW_MS), NOW_MS) == STEP


def test_the_address_for_the_app_names_issuer_account_and_secret():
    uri = codes.provisioning_uri(SECRET, "Aka", "htdag")
    assert uri.startswith("otpauth://totp/htdag:Aka?")
    assert SECRET in uri


@pytest.mark.parametrize("text", ["aka", " Aka ", "AKA", "a-1_b", "a" * 64])
def test_a_name_has_one_key_whatever_its_case(text):
    assert key_of(text) == text.strip().lower()


@pytest.mark.parametrize(
    "text", ["", "483291", "a.b", "a*", "a>", "a b", "\u03b1ka", "a\u212aa", "a" * 65, "-a", "a\x00"]
)
def test_what_is_no_name_is_nobody(text):
    assert key_of(text) is None
    with pytest.raises(Rejected, match="bad_name"):
        checked_name(text)
