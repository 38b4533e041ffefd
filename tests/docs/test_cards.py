"""The estimator cards match the table of facts, and their figures the stored tables."""

import csv
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from pg import numerals
from pg.estimators.facts import FACTS, ON_TABLES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGE = (DOCS / "cards.md").read_text(encoding="utf-8")
CARDS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def measured(file: str) -> list[dict[str, str]]:
    """The lines of a table of the leaderboard that cards show."""
    with (DOCS / "leaderboard" / file).open(encoding="utf-8", newline="") as lines:
        return [
            line
            for line in csv.DictReader(lines)
            if line["snapshot"] == "middle" and line["seed"] == "1" and line["estimator"] in FACTS
        ]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("cards", DOCS / "tools" / "cards.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_command_writes(generator: ModuleType) -> None:
    """`python docs/tools/cards.py` would change nothing."""
    start, end = generator.MARKS
    assert PAGE.split(start)[1].split(end)[0] == f"\n{generator.cards()}\n"


def test_every_estimator_has_a_card() -> None:
    assert re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) == list(CARDS)  # one each
    assert set(CARDS) == set(FACTS)
    contents = re.findall(r"\[`(\w+)`\]\(#(\w+)\)", PAGE)
    assert contents == [(name, name) for name in CARDS]


def test_exact_figures_are_those_of_the_exact_table() -> None:
    table = (DOCS / "estimators.md").read_text(encoding="utf-8").split("<!-- table -->")[1]
    rows = re.findall(r"^\| `(\w+)` \|.* \| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    assert len(rows) > 30
    for name, *figures in rows:
        if name not in ON_TABLES:
            assert figures == ["—"] * 3
            assert "| exact " not in CARDS[name]
            continue
        shown = CARDS[name].split("| exact ")[1].split("\n\n")[0].splitlines()[2:]
        cells = [re.split(r" *\| *", line.strip("| "))[1:] for line in shown]
        assert [" · ".join(row) for row in cells] == figures, name


def test_costs_are_those_of_the_leaderboard() -> None:
    lines = measured("quality.csv")
    assert lines
    for line in lines:
        head, _, costs = CARDS[line["estimator"]].split("| sampled ")[1].splitlines()[:3]
        problems = [cell.strip() for cell in head.split("|")[1:-1]]
        cells = [cell.strip() for cell in costs.split("|")[2:-1]]
        shown = dict(zip(problems, cells, strict=True))[line["problem"]]
        steps = numerals.short(float(line["steps_for_0_9"]))
        assert shown.split(" [")[0] == steps, line


def test_who_was_measured_has_a_curve() -> None:
    pictures = {path.stem for path in (DOCS / "images" / "cards").iterdir()}
    assert pictures == {line["estimator"] for line in measured("cosines.csv")}
    shown = re.findall(r"\]\(images/cards/(\w+)\.png\)", PAGE)
    assert sorted(shown) == sorted(pictures)
