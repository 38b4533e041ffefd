"""Killed runs end as if uninterrupted, in short: `fault_injection.py` does so a hundred times."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.acceptance("C1", "C3", "C8", "C10")
def test_runs_that_are_killed_end_as_others() -> None:
    """Four kills, by random signals at random moments."""
    script = Path(__file__).parents[1] / "tools" / "fault_injection.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 4 kills identical" in done.stdout
