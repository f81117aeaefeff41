"""The type check is a test like any other."""

import subprocess
import sys

import pytest

from tests.architecture.source import ROOT


@pytest.mark.timeout(300)
def test_mypy_strict_finds_nothing() -> None:
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
