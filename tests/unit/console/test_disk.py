"""When little disk is a failure, and when a warning."""

import shutil
from collections import namedtuple

import pytest

from services.console.doctor import machine
from services.console.home import Home

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("free", "status", "said"),
    [
        (50 << 20, "fail", "the broker needs 93.7 MB"),
        (200 << 20, "warn", "less than 2.1 GB; the broker still stores"),
        (3 << 30, "ok", "3.2 GB free"),
    ],
)
def test_what_the_broker_needs_to_store_is_the_line(monkeypatch, tmp_path, free, status, said):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(free, 0, free))
    finding = machine.disk(Home(tmp_path))
    assert (finding.status, said in finding.message) == (status, True), finding.message
