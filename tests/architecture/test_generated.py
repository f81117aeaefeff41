"""What is generated is as the contracts say today."""

import subprocess
import sys

from tests.architecture.source import ROOT


def test_generated_files_are_fresh() -> None:
    command = [sys.executable, "scripts/generate", "--verify"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}\nMend: scripts/generate"
