"""The page speaks to people: also when their sign-in has run out, and when nobody answers any more."""

import base64
import hashlib
import re

from services.identity.local.page import PAGE, POLICY

(SCRIPT,) = re.findall(r"<script>(.*?)</script>", PAGE, re.DOTALL)


def test_the_script_is_the_one_that_the_policy_lets_run() -> None:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in POLICY


def test_who_is_signed_in_no_more_is_asked_for_the_password_again() -> None:
    assert "if(told.code==='not_signed_in')again();else said.textContent=" in SCRIPT
    assert re.search(r"function again\(\)\{bearer='';known\(\);show\(true\);", SCRIPT)
    assert "Enter your password again, then scan again." in SCRIPT


def test_a_listener_that_is_gone_is_said_to_be_gone() -> None:
    assert re.search(r"catch\(gone\)\{said\.textContent='Nothing answers here any more\.", SCRIPT)
