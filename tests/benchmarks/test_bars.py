"""A2C reaches the bars of tasks whose optimum is known."""

from pathlib import Path

import pytest

from pg.benchmarks import learning, selection, suites
from pg.reports import tables

ROOT = Path(__file__).parents[2]
# A2C on the tasks whose optimum is known: CartPole, Acrobot, Catch, DeepSea.
BARS = ("CartPole-v1", "Acrobot-v1", "Catch-bsuite", "DeepSea-bsuite")


def assert_reached(name: str, lines: list[learning.Result]) -> None:
    """Asserts that as many of the 20 seeds as the bar asks for reach it within the budget."""
    row = suites.row_of(name, "actor_critic")
    assert row is not None
    assert row.bar is not None
    assert sorted(line.seed for line in lines) == list(range(20))
    assert max(line.env_steps for line in lines) <= row.steps
    assert sum(line.greedy >= row.bar.score for line in lines) >= row.bar.share * 20


@pytest.mark.acceptance("T5")
@pytest.mark.parametrize("name", BARS)
def test_what_is_reported_reaches_the_bars(name: str) -> None:
    lines = tables.read_csv(ROOT / "docs" / "benchmark.csv", learning.Result)
    assert_reached(
        name, [line for line in lines if (line.env, line.label) == (name, "actor_critic")]
    )


@pytest.mark.slow
@pytest.mark.acceptance("T5")
@pytest.mark.parametrize("name", BARS)
def test_what_is_trained_reaches_the_bars(name: str, tmp_path: Path) -> None:
    rows = selection.select("all", (name,), ("actor_critic",))
    learning.run(rows, selection.settings, tmp_path)
    assert_reached(name, learning.collect(tmp_path))
