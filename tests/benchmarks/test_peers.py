"""The comparison with other libraries: what needs no other library runs, and a missing one is left
out.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "experiments" / "speed" / "peers.py"
sys.path.insert(0, str(SCRIPT.parent))
from peer_turns import take_turns  # noqa: E402

sys.path.remove(str(SCRIPT.parent))


@pytest.mark.slow
def test_programs_take_turns_and_give_finite_ratios(tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    flags = [
        "--settings",
        "ppo",
        "--peers",
        "purejaxrl_style",
        "rejax",
        "--divide",
        "16",
        "--rounds",
        "2",
    ]
    # An interpreter without site packages has no rejax, whatever this one has.
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    command = [sys.executable, str(SCRIPT), *flags, "--python", f"rejax={bare}", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "rejax is left out: No module named 'rejax'" in done.stdout
    found = json.loads(out.read_text())["ppo"]
    assert set(found) == {"pg:ppo", "pg_spread:ppo", "purejaxrl_style"}
    assert found["pg:ppo"]["ppo s"] == found["pg:ppo"]["ppo CPU s"] == 1.0
    for row in found.values():
        assert all(math.isfinite(x) and x > 0 for name, x in row.items() if name != "compile s")


def test_what_does_not_answer_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    ready = "import sys, time; print('{}', flush=True)"
    echo = "[print('{\"seed\": %s}' % int(x), flush=True) for x in sys.stdin]"
    programs = {
        "it answers": f"{ready}; {echo}",
        "it hangs": f"{ready}; time.sleep(600)",
        "it ends": "sys.exit()",
    }
    commands = {name: [sys.executable, "-c", program] for name, program in programs.items()}
    assert take_turns(commands, rounds=1, patience=3) == {"it answers": [{"seed": 0}, {"seed": 1}]}
    printed = capfd.readouterr().out
    assert "it hangs is left out: it ended with code -9; it had 3 seconds" in printed
    assert "it ends is left out: it ended with code 1" in printed
