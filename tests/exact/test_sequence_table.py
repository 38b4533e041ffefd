"""The exact table of policy gradients over sequences: what its command prints, and what the page of
the documentation says.
"""

from pathlib import Path

import numpy as np
import pytest

from pg.commands import sequence_table
from pg.config import Hyperparams
from pg.diagnostics import sequence_figures
from pg.estimators.switches import PRESETS, Switches
from pg.exact import tabular

PAGE = Path(__file__).parents[2] / "docs/science/sequences.md"
LAGS = (0, 1, 4, 16)


def shown(problem: str) -> dict[str, str]:
    """The rows of the page by the name of the estimator."""
    text = PAGE.read_text(encoding="utf-8")
    table = text.split(f"<!-- {problem} -->")[1].split(f"<!-- end of {problem} -->")[0]
    lines = table.strip().splitlines()[2:]
    return {line.split(" | ")[0].strip("| "): line for line in lines}


def figures(problem: str, name: str) -> dict[int, sequence_figures.SequenceFigures]:
    """The figures of a row, by lag."""
    on = sequence_figures.problem(tabular.sequence_problems()[problem], LAGS)
    switches = sequence_table.rows()[name]
    h = sequence_table.hyperparams(switches, 0.1)
    unit = sequence_figures.plain_variance(on, h)
    return sequence_figures.figures(switches, on, h, unit)


def test_the_page_has_all_rows_of_every_problem() -> None:
    for problem in sequence_table.PROBLEMS:
        assert list(shown(problem)) == list(sequence_table.rows())
    assert tuple(tabular.sequence_problems()) == sequence_table.PROBLEMS
    assert set(PRESETS) < set(sequence_table.rows())


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("problem", "name"),
    [
        ("equal_lengths", "rloo"),
        pytest.param("unequal_lengths", "grpo", marks=pytest.mark.slow),
        pytest.param("agreeing_groups", "gspo", marks=pytest.mark.slow),
        pytest.param("agreeing_groups", "kl=k3, kl_place=loss", marks=pytest.mark.slow),
    ],
)
def test_the_page_says_what_the_command_computes(problem: str, name: str) -> None:
    found = figures(problem, name)
    expected = sequence_table.row(name, [found[lag] for lag in LAGS])
    assert shown(problem)[name] == expected


def test_the_page_says_that_truncation_has_no_effect_and_a_lag_may_lower_the_variance() -> None:
    variances = []
    for problem in sequence_table.PROBLEMS:
        rows = shown(problem)
        without = rows["ratio=sequence"].removeprefix("| ratio=sequence")
        assert rows["ratio=sequence, clip=truncated"].endswith(f"truncated{without}")
        variances.append(float(without.split(" · ")[-2]))
    assert variances == [0.947, 0.89, 1.027]


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_no_weight_of_a_sequence_in_the_table_is_truncated() -> None:
    largest = 0.0
    for environment in tabular.sequence_problems().values():
        on = sequence_figures.problem(environment, LAGS)
        _, now = tabular.enumerate_trajectories(on.mdp, on.logits)
        for behaviour in on.behaviours.values():
            _, before = tabular.enumerate_trajectories(on.mdp, behaviour)
            largest = max(largest, float((now / before).max()))
    assert largest == pytest.approx(1.74, abs=0.005)
    assert largest < Hyperparams().ratio_bound


@pytest.mark.usefixtures("x64")
def test_the_plain_gradient_is_the_unit_and_the_ratio_of_sequences_stays_unbiased() -> None:
    on = sequence_figures.problem(tabular.sequence_problems()["agreeing_groups"], (4,))
    h = Hyperparams()
    unit = sequence_figures.plain_variance(on, h)
    plain = sequence_figures.figures(Switches(baseline="none"), on, h, unit)
    assert plain[0].bias == 0
    assert plain[0].variance == pytest.approx(1.0)
    assert plain[4].bias > 0.01
    whole = sequence_figures.figures(Switches(baseline="none", ratio="sequence"), on, h, unit)
    assert [whole[lag].bias for lag in (0, 4)] == [0, 0]
    assert np.isclose(whole[4].cosine, 1.0)


def test_a_mistake_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    for words, sentence in (
        (["--problems", "equal_length"], "did you mean 'equal_lengths'"),
        (["--lags", "-1"], "lags must be whole numbers of at least 0"),
        (["--kl-coef", "-1"], "--kl-coef must be finite and at least 0"),
    ):
        with pytest.raises(SystemExit) as stopped:
            sequence_table.main(words)
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err


def test_a_file_without_the_marks_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "page.md").write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit):
        sequence_table.main(["--out", str(tmp_path / "page.md")])
    said = " ".join(capsys.readouterr().err.split())
    assert "must have the lines <!-- equal_lengths --> and <!-- end of equal_lengths -->" in said
