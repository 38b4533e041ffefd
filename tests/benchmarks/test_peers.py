"""The comparison with other libraries: programs that need no other library run, and a missing
library is left out.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments" / "speed" / "peers.py"
sys.path.insert(0, str(SCRIPT.parent))
from peer_turns import take_turns  # noqa: E402
from peers import MARKS, PEERS, figures, report  # noqa: E402

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
    rows = found["rows"]
    own = {"pg:ppo", "pg:ppo:rows", "pg_spread:ppo", "pg_spread:ppo:rows"}
    assert set(rows) == own | {"purejaxrl_style"}
    assert set(found["left_out"]) == {"rejax"}
    assert found["versions"]["purejaxrl_style"]["jax"] == jax.__version__
    assert rows["pg:ppo"]["pg:ppo s"] == rows["pg:ppo"]["pg:ppo CPU s"] == 1.0
    for row in rows.values():
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
    turns = take_turns(commands, rounds=1, patience=3)
    assert turns.answers == {"it answers": [{"seed": 0}, {"seed": 1}]}
    assert turns.ready == {"it answers": {}}
    assert turns.left_out == {
        "it hangs": "it had not answered after 3 seconds",
        "it ends": "it ended with code 1",
    }
    printed = capfd.readouterr().out
    for name, reason in turns.left_out.items():
        assert f"{name} is left out: {reason}" in printed


def answers(seconds: float, cores: float) -> list[dict[str, float]]:
    """Two rounds of a program after the first, of 1000 steps."""
    found = {
        "seconds": seconds,
        "CPU seconds": cores * seconds,
        "steps/s": 1000 / seconds,
        "steps/CPU s": 1000 / (cores * seconds),
    }
    return [found | {"seconds": seconds + 7}, found, found]


def test_the_report_is_made_of_the_figures(tmp_path: Path) -> None:
    """A cell is pg's speed as a multiple of a peer's, by wall time and by processor time; omissions
    and all versions are reported.
    """
    rows = figures({"pg:ppo": answers(1.0, 1.0), "rejax": answers(3.0, 2.0)})
    stored = {
        "ppo": {
            "rows": rows,
            "left_out": {"jaxnasium": "it had not answered after 600 seconds"},
            "versions": {"rejax": {"rejax": "0.1.3"}},
            "spec": {},
            "rounds": 2,
            "cores": 2,
        }
    }
    out, page = tmp_path / "peers.json", tmp_path / "page.md"
    out.write_text(json.dumps(stored))
    page.write_text("before\n<!-- peers -->\nold\n<!-- end of peers -->\nafter\n")
    command = [sys.executable, str(SCRIPT), "--json", str(out), "--report", str(page)]
    subprocess.run(command, check=True, timeout=300)
    text = page.read_text()
    cells = {
        row[0]: row[1:]
        for row in (
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in text.splitlines()
            if line.startswith("|")
        )
    }
    peers = list(PEERS.values())
    assert cells[""][: len(peers)] == peers
    own = dict(zip(cells[""], cells["`ppo`, one device"], strict=True))
    assert own["rejax"] == "3.00 · 6.00"
    assert own["purejaxrl"] == "–"
    assert own["compile, s"] == "7.0"
    assert own["processor s per M steps"] == "1000"
    theirs = dict(zip(cells[""], cells["their processor s per M steps"], strict=True))
    assert theirs["rejax"] == "6000"
    assert "jaxnasium: it had not answered after 600 seconds." in text
    assert "rejax: rejax 0.1.3." in text
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text


def test_the_page_has_the_table_of_the_stored_figures() -> None:
    stored = ROOT / "docs" / "peers.json"
    if not stored.is_file():
        pytest.skip("no figures are stored")
    page = (ROOT / "docs" / "performance.md").read_text()
    between = page.split(MARKS[0])[1].split(MARKS[1])[0]
    assert between.strip() == report(json.loads(stored.read_text())).strip()
