"""Every subject of ours that a service may say or hear by its rights stands in the documents."""

import re

from contracts.channels import CHANNELS
from contracts.permissions import USES
from contracts.rights import covers
from contracts.subjects import ROOT, beat


def documented() -> list[str]:
    return [re.sub(r"\{\w+\}", "*", channel.address) for channel in CHANNELS]


def test_whatever_services_say_and_hear_is_documented() -> None:
    used = {subject for use in USES.values() for subject in (*use.says, *use.hears) if subject.startswith(f"{ROOT}.")}
    assert used
    assert [one for one in sorted(used) if not any(covers(subject, one) for subject in documented())] == []


def test_the_beats_of_executors_are_documented() -> None:
    assert beat("executor") in documented()
