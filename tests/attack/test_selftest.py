"""The self-test finds every property of the sandbox to hold, as root and as an ordinary user."""

import pytest

from tests.attack.ground import Hands


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "watchdog"])
def test_every_property_holds(hands: Hands, cgroups: bool) -> None:
    findings = hands.ask(do="selftest", cgroups=cgroups)
    assert [finding for finding in findings if not finding["ok"]] == []
    assert len(findings) == 11
