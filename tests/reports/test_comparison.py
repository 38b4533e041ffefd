"""Comparison of runs: groups and their names, figures against numpy, pairs, and the command from
folders to files.
"""

import csv
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from stored import STEPS, UPDATES, store_run, store_sweep

from pg.commands import compare as command
from pg.reports import comparison, curves, plots, statistics
from pg.reports.comparison import Comparison, Row
from pg.runs import loading

SCORES = np.random.default_rng(0).normal(100.0, 10.0, 20)


def compared(*folders: Path, **options: Any) -> Comparison:
    return comparison.compare(loading.find(folders).runs, **options)


def rows_of(*folders: Path, threshold: float | None = None, **options: Any) -> list[Row]:
    return comparison.tabulate(compared(*folders, **options), threshold)


def test_runs_that_differ_only_in_their_seeds_are_one_group(tmp_path: Path) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0])
    b = store_run(tmp_path / "b", [3.0, 4.0, 5.0], first_seed=2)
    c = store_run(tmp_path / "c", [9.0], hyperparams={"gamma": 0.9})
    found = compared(a, c, b)
    assert found.labels == ["gamma=1", "gamma=0.9"]
    assert [len(group.runs) for group in found.groups] == [2, 1]
    first, _ = comparison.tabulate(found)
    assert (first.seeds, first.mean.value, first.env_steps) == (5, 3.0, STEPS * UPDATES)
    said = comparison.remarks(found, comparison.tabulate(found))
    assert "runs that differ only in their seeds are pooled: 3 in 2" in said


def test_a_seed_is_not_counted_twice(tmp_path: Path) -> None:
    """The same settings and seeds again are a separate group, told apart by its folder."""
    folders = [store_run(tmp_path / name, [1.0, 2.0, 3.0]) for name in ("before", "after")]
    found = compared(*folders)
    assert found.labels == ["folder=before", "folder=after"]
    _, other = comparison.tabulate(found)
    better = other.probability_of_improvement
    assert (better.value, other.pairs) == (0.5, 3)
    assert better.low < 0.5 < better.high


def test_groups_are_named_by_the_fewest_settings_that_tell_them_apart(tmp_path: Path) -> None:
    """An estimator alone where that is enough, whatever else its preset has changed."""
    a = store_run(tmp_path / "x1", [1.0])
    b = store_run(tmp_path / "x2", [1.0], estimator="ppo", collect="windows", num_envs=3)
    c = store_run(tmp_path / "x3", [1.0], estimator="ppo", collect="windows", num_envs=5)
    two = compared(a, b)
    assert (two.labels, two.differing) == (["reinforce", "ppo"], ["collect", "num_envs"])
    assert compared(a, b, c).labels == [
        "reinforce, num_envs=25",
        "ppo, num_envs=3",
        "ppo, num_envs=5",
    ]
    assert compared(a).labels == ["reinforce"]
    sweep = store_sweep(tmp_path / "s", {"length": [0.5, 1.0]}, np.ones((2, 3)))
    assert compared(sweep).labels == ["length=0.5", "length=1"]
    table = {"learning_rate": [0.001, 0.01], "gamma": [0.9, 1.0]}  # one would be enough
    both = compared(store_sweep(tmp_path / "t", table, np.ones((2, 3))))
    assert both.labels == ["learning_rate=0.001, gamma=0.9", "learning_rate=0.01, gamma=1"]


def test_the_same_method_on_other_environments_has_the_same_name(tmp_path: Path) -> None:
    """Also where its settings are others there, as those of a preset."""
    folders = [
        store_run(
            tmp_path / env / estimator,
            [1.0, 2.0],
            env=env,
            estimator=estimator,
            hyperparams={"learning_rate": 0.01 * (1 + len(env)) * (1 + len(estimator))},
        )
        for env in ("CartPole-v1", "Catch-bsuite")
        for estimator in ("reinforce", "leave_one_out")
    ]
    found = compared(*folders)
    assert found.labels == ["reinforce", "leave_one_out"] * 2
    assert [row.pairs for row in comparison.tabulate(found)] == [0, 2, 0, 2]


def test_the_figures_are_those_of_numpy(tmp_path: Path) -> None:
    a, b = SCORES[:8], SCORES[8:] + 5.0
    folders = [
        store_run(tmp_path / "a", a.tolist()),
        store_run(tmp_path / "b", b.tolist(), first_seed=8, hyperparams={"gamma": 0.9}),
    ]
    first, second = rows_of(*folders)
    g, count = np.random.default_rng(1), 20_000
    drawn_a, drawn_b = (x[g.integers(0, len(x), (count, len(x)))] for x in (a, b))
    for row, scores, drawn in ((first, a, drawn_a), (second, b, drawn_b)):
        middle = scipy.stats.trim_mean(drawn, 0.25, axis=1)
        assert row.iqm.value == pytest.approx(scipy.stats.trim_mean(scores, 0.25))
        np.testing.assert_allclose(row.iqm[1:], np.quantile(middle, [0.025, 0.975]), atol=0.6)
        assert row.mean.value == pytest.approx(scores.mean())
        ends = np.quantile(drawn.mean(axis=1), [0.025, 0.975])
        np.testing.assert_allclose(row.mean[1:], ends, atol=0.6)
    better = second.probability_of_improvement
    assert better.value == pytest.approx((b[:, None] > a).mean())
    won = (drawn_b[:2000, :, None] > drawn_a[:2000, None]).mean(axis=(1, 2))
    np.testing.assert_allclose(better[1:], np.quantile(won, [0.025, 0.975]), atol=0.04)
    assert np.isnan(first.probability_of_improvement.value)  # the baseline


def test_what_seeds_do_to_both_cancels_in_pairs(tmp_path: Path) -> None:
    """A small gain on seeds that differ widely: certain in pairs, and hidden without."""
    before = store_run(tmp_path / "a", SCORES.tolist())
    gain = (SCORES + 0.1).tolist()
    same = store_run(tmp_path / "b", gain, hyperparams={"gamma": 0.9})
    others = store_run(tmp_path / "c", gain, first_seed=20, hyperparams={"gamma": 0.9})
    _, paired = rows_of(before, same)
    _, unpaired = rows_of(before, others)
    assert (paired.pairs, unpaired.pairs) == (20, 0)
    assert paired.probability_of_improvement.value == 1.0
    assert paired.probability_of_improvement.low > 0.8
    assert unpaired.probability_of_improvement.value == pytest.approx(0.5, abs=0.05)
    assert unpaired.probability_of_improvement.low < 0.5


def test_pairs_are_found_by_seed_in_whatever_order(tmp_path: Path) -> None:
    before = store_run(tmp_path / "a", [1.0, 2.0, 3.0, 4.0])
    late = store_run(tmp_path / "b", [3.5, 4.5], first_seed=2, hyperparams={"gamma": 0.9})
    early = store_run(tmp_path / "c", [1.5, 2.5], first_seed=0, hyperparams={"gamma": 0.9})
    _, row = rows_of(before, late, early)
    assert (row.pairs, row.probability_of_improvement.value) == (4, 1.0)


@pytest.mark.parametrize("other", [{"env_params": {"length": 1.0}}, {"horizon": 7}])
def test_runs_of_another_environment_are_no_pairs(tmp_path: Path, other: dict[str, Any]) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0])
    b = store_run(tmp_path / "b", [1.5, 2.5], **other)
    found = compared(a, b)
    _, row = comparison.tabulate(found)
    assert (row.pairs, row.probability_of_improvement.value) == (0, 0.75)
    said = "\n".join(comparison.remarks(found, [row]))
    assert "not paired, as seeds or environments differ" in said


def test_parameters_of_the_environment_are_named_whatever_else_differs(tmp_path: Path) -> None:
    """Scores on a longer pole are not those of a better method."""
    a = store_run(tmp_path / "a", [1.0, 2.0])
    b = store_run(tmp_path / "b", [1.5, 2.5], estimator="gae", env_params={"length": 1.5})
    found = compared(a, b)
    assert found.labels == ["reinforce", "gae, length=1.5"]
    said = " ".join(comparison.remarks(found, comparison.tabulate(found)))
    assert "runs that differ in length were trained on different environments" in said
    held = store_run(tmp_path / "c", [1.5, 2.5], estimator="gae", action_repeat=2)
    assert "different environments" not in " ".join(
        comparison.remarks(compared(a, held), comparison.tabulate(compared(a, held)))
    )


def test_the_table_says_how_seeds_are_compared_and_which_are_left_out(tmp_path: Path) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0, 3.0])
    fewer = store_run(tmp_path / "b", [1.5, 2.5], hyperparams={"gamma": 0.9})
    others = store_run(tmp_path / "c", [1.5, 2.5], first_seed=7, hyperparams={"gamma": 0.8})
    found = compared(a, fewer, others)
    rows = comparison.tabulate(found)
    assert [(row.comparison, row.pairs, row.left_out) for row in rows] == [
        ("", 0, 0),
        ("paired", 2, 1),
        ("unpaired", 0, 0),
    ]
    of = [line[-1] for line in comparison.cells(found, rows)]
    assert of == ["of", "", "2 pairs, 1 left out", "2 × 3, unpaired"]
    said = " ".join(comparison.remarks(found, rows, 2.0))
    assert "left out: seeds of only one of the two groups" in said
    assert "with 100 bins per run: narrower ones reach it earlier" in said


def test_seeds_that_only_overlap_are_no_pairs(tmp_path: Path) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0, 3.0])
    b = store_run(tmp_path / "b", [1.5, 2.5, 3.5], first_seed=1, hyperparams={"gamma": 0.9})
    assert rows_of(a, b)[1].pairs == 0


def test_a_seed_that_diverged_is_last_and_in_no_mean(tmp_path: Path) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0, 3.0])
    b = store_run(tmp_path / "b", [9.0, np.nan, 9.0], hyperparams={"gamma": 0.9})
    _, row = rows_of(a, b)
    assert (row.seeds, row.diverged, row.mean.value, row.iqm.value) == (3, 1, 9.0, 9.0)
    assert row.probability_of_improvement.value == pytest.approx(2 / 3)


def test_steps_to_a_threshold_count_seeds_that_did_not_reach_it(tmp_path: Path) -> None:
    """Returns rise linearly to the score: to 6 of 8 in the fourth stretch of five."""
    run = store_run(tmp_path / "a", [8.0, 8.0, 6.0, 3.0])
    (row,) = rows_of(run, threshold=6.0)
    assert (row.reached, row.steps_to_threshold.value) == (3, (4 + 5) / 2 * STEPS)
    assert row.steps_to_threshold.high == np.inf
    (row,) = rows_of(run, threshold=7.0)
    assert (row.reached, row.steps_to_threshold.value) == (2, np.inf)
    (row,) = rows_of(run, threshold=9.0)
    assert (row.reached, tuple(row.steps_to_threshold)) == (0, (np.inf,) * 3)


def test_evaluations_of_two_kinds_are_not_compared(tmp_path: Path) -> None:
    both = store_run(tmp_path / "a", [1.0, 2.0], greedy=[5.0, 6.0])
    sampled = store_run(tmp_path / "b", [3.0, 4.0], hyperparams={"gamma": 0.9})
    assert [row.mean.value for row in rows_of(both, sampled)] == [1.5, 3.5]
    assert rows_of(both, actions="greedy")[0].mean.value == 5.5
    with pytest.raises(ValueError, match=r"must be of one kind, .*/b has none with greedy"):
        compared(both, sampled, actions="greedy")


def test_it_is_said_where_some_were_trained_for_longer(tmp_path: Path) -> None:
    short = store_run(tmp_path / "a", [1.0, 2.0])
    long = store_run(tmp_path / "b", [3.0, 4.0], num_updates=20)
    found = compared(short, long)
    said = comparison.remarks(found, comparison.tabulate(found))
    assert "CartPole-v1: scores are after 500 to 2k environment steps per seed" in said
    alone = compared(short)
    said = comparison.remarks(alone, comparison.tabulate(alone))
    assert not any("environment steps" in text for text in said)


def test_it_is_said_where_steps_to_a_threshold_are_censored_at_different_lengths(
    tmp_path: Path,
) -> None:
    short = store_run(tmp_path / "a", [8.0, 8.0])
    long = store_run(tmp_path / "b", [8.0, 8.0], num_updates=20)
    as_long = store_run(tmp_path / "c", [8.0, 8.0], hyperparams={"gamma": 0.9})
    unfair = "CartPole-v1: the steps to 9 are not a fair comparison, as they are censored after 500"

    def said(*folders: Path, threshold: float | None) -> list[str]:
        found = compared(*folders)
        rows = comparison.tabulate(found, threshold)
        return comparison.remarks(found, rows, threshold)

    (sentence,) = [text for text in said(short, long, threshold=9.0) if "fair" in text]
    assert sentence.startswith(f"{unfair} to 2k: ")
    for texts in (said(short, long, threshold=None), said(short, as_long, threshold=9.0)):
        assert not any("fair" in text for text in texts)


def test_fresh_seeds_are_not_pooled_with_those_of_the_choice(tmp_path: Path) -> None:
    sweep = store_sweep(tmp_path / "s", {"gamma": [0.9, 1.0]}, SCORES[:4].reshape(2, 2))
    best = store_run(sweep / "best", [3.0, 4.0], first_seed=2)
    found = compared(sweep, best)
    assert found.labels == ["gamma=0.9, from=sweep", "gamma=1, from=sweep", "gamma=1"]
    assert any(
        "biased upwards" in said for said in comparison.remarks(found, comparison.tabulate(found))
    )


def test_the_baseline_is_one_method_and_need_not_be_among_the_runs(tmp_path: Path) -> None:
    a = store_run(tmp_path / "a", [1.0, 2.0])
    b = store_run(tmp_path / "b", [3.0, 4.0], hyperparams={"gamma": 0.9})
    found = compared(a, baseline=loading.find(b).runs)
    assert found.label_of(found.baseline) == "gamma=0.9"
    assert found.labels == ["gamma=0.9", "gamma=1"]
    with pytest.raises(ValueError, match="baseline must be one method, but it has runs of gamma"):
        compared(a, baseline=loading.find([a, b]).runs)


def test_the_probability_over_environments_is_their_mean(tmp_path: Path) -> None:
    folders = []
    for env, gain in (("CartPole-v1", 1.0), ("Catch-bsuite", -1.0), ("Pendulum-v1", 1.0)):
        folders.append(store_run(tmp_path / env / "a", [1.0, 2.0, 3.0], env=env))
        scores = [1.0 + gain, 2.0 + gain, 3.0 + gain]
        folders.append(store_run(tmp_path / env / "b", scores, env=env, estimator="leave_one_out"))
    found = compared(*folders)
    overall = comparison.overall_improvement(found, ("leave_one_out",))
    assert overall.value == pytest.approx(2 / 3)
    assert overall.low < 2 / 3 < overall.high
    said = comparison.remarks(found, comparison.tabulate(found))
    assert any(text.startswith("leave_one_out, over 3 environments: P") for text in said)
    more = [5.0, 6.0, 7.0, 8.0]
    b = store_run(tmp_path / "more" / "b", more, env="Acrobot-v1", estimator="leave_one_out")
    a = store_run(tmp_path / "more" / "a", more, env="Acrobot-v1")
    found = compared(*folders, a, b)
    said = comparison.remarks(found, comparison.tabulate(found))
    assert any("of the first 3 seeds of it and 3 of the baseline on each" in text for text in said)
    alone = compared(*folders, store_run(tmp_path / "c", [1.0], env="Acrobot-v1"))
    with pytest.raises(ValueError, match="was not run on Acrobot-v1"):
        comparison.overall_improvement(alone, ("leave_one_out",))


def test_curves_and_profiles_are_those_of_the_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}

    def keep(panels: dict[str, Any], path: Path, **options: Any) -> None:
        drawn.update(panels)

    monkeypatch.setattr(comparison.plots, "comparison", keep)
    a = store_run(tmp_path / "a", SCORES[:6].tolist())
    found = compared(a)
    comparison.draw(found, comparison.tabulate(found), tmp_path / "x.png")
    (panel,) = drawn.values()
    stored = loading.find(a).runs[0]
    expected = curves.mean_learning_curve(
        *curves.seed_curves(stored.metrics), statistic=statistics.iqm
    )
    for ours, theirs in zip(panel.curves["reinforce"].mean, expected.mean, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    above = [(SCORES[:6] > tau).mean() for tau in panel.thresholds]
    np.testing.assert_allclose(panel.profiles["reinforce"].value, above)


def test_of_many_groups_the_baseline_and_the_best_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = np.linspace(0.001, 0.03, 15).round(3).tolist()
    scores = np.repeat(np.arange(15.0)[:, None], 2, axis=1)
    found = compared(store_sweep(tmp_path / "s", {"learning_rate": rates}, scores))
    names = list(comparison._drawn(found, comparison.tabulate(found), "CartPole-v1"))
    assert names == [f"learning_rate={rate:g}" for rate in [rates[0], *rates[-6:]]]
    looks = plots.looks(names).values()
    assert len({look["color"] for look in looks}) == len(names)
    panels: dict[str, Any] = {}
    monkeypatch.setattr(plots, "comparison", lambda found, *_, **__: panels.update(found))
    said: list[str] = []
    comparison.draw(found, comparison.tabulate(found), tmp_path / "x.png", say=said.append)
    assert list(panels) == ["CartPole-v1, 7 of 15 groups"]
    assert said == ["CartPole-v1: only the baseline and the best are drawn, 7 of 15 groups"]


def printed(capsys: pytest.CaptureFixture[str], *argv: object) -> list[str]:
    assert command.main([str(word) for word in argv], "pg compare") == 0
    return capsys.readouterr().out.splitlines()


def test_the_command_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    a = store_run(tmp_path / "r" / "a", SCORES[:5].tolist())
    store_run(tmp_path / "r" / "b", (SCORES[:5] + 3).tolist(), estimator="leave_one_out")
    begun = store_run(tmp_path / "r" / "c", [1.0], status="interrupted")
    out = tmp_path / "out"
    lines = printed(capsys, tmp_path / "r", "--out", out, "--threshold", "50", "--baseline", a)
    assert lines[0] == f"left out, as not finished: {begun}"
    assert max(map(len, lines[1:9])) <= 80, lines
    assert lines[1] == "CartPole-v1"
    head = ["estimator", "seeds", "IQM [95 %]", "P(> baseline) [95 %]", "of"]
    assert re.split("  +", lines[2]) == head
    assert re.match(
        r"leave_one_out +5 +[\d.]+ \[[\d., ]+\] +1.00 \[0.57, 1.00\] +5 pairs", lines[4]
    )
    assert any(re.match(r"leave_one_out +300 \[300, 400\] +5/5", line) for line in lines)
    names = [out / f"comparison.{kind}" for kind in ("csv", "md", "png")]
    assert lines[-3:] == list(map(str, names))
    assert all(path.stat().st_size for path in (*names, out / "comparison.svg"))
    with names[0].open() as file:
        _, second = csv.DictReader(file)
    assert (second["group"], second["seeds"], second["pairs"]) == ("leave_one_out", "5", "5")
    assert float(second["mean"]) == pytest.approx(SCORES[:5].mean() + 3)
    assert second["settings.estimator"] == "leave_one_out"
    text = names[1].read_text()
    assert text.startswith("| env         | estimator     | seeds | IQM [95 %]")
    assert "\n- baseline: reinforce; P is" in text


def test_each_comparison_has_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(comparison, "draw", lambda *_, **__: None)
    run = store_run(tmp_path / "a", [1.0, 2.0])
    written = [Path(printed(capsys, run)[-1]).parent for _ in range(2)]
    assert written[0] != written[1]
    for folder in written:
        assert folder.parent == tmp_path / "results" / "comparison"
        assert (folder / "comparison.md").stat().st_size > 0


def test_one_group_is_a_table_without_a_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = store_run(tmp_path / "a", [1.0, 2.0])
    lines = printed(capsys, run, "--out", tmp_path / "out")
    assert lines[1].split() == ["estimator", "seeds", "IQM", "[95", "%]", "mean", "[95", "%]"]
    assert not any("baseline" in line for line in lines)
    assert lines[-4] == "- intervals of fewer than 5 seeds are too narrow"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "name the runs to compare"),
        (["nowhere"], "there is no folder nowhere"),
        (["nothing/*"], "nothing matches nothing/*"),
        (["{begun}"], "no finished run in {begun}: a run has scores once it has ended"),
        (["{run}", "--threshold", "inf"], "threshold must be a finite return, got inf"),
        (["{run}", "--baseline", "nowhere"], "there is no folder nowhere"),
        (["{run}", "--basline", "x"], "there is no flag --basline: did you mean --baseline?"),
    ],
)
def test_a_mistake_is_one_sentence(
    argv: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = store_run(tmp_path / "begun", [1.0], status="interrupted")
    run = store_run(tmp_path / "run", [1.0])
    words = [word.format(begun=begun, run=run) for word in argv]
    with pytest.raises(SystemExit) as stopped:
        command.main([*words, "--out", str(tmp_path / "out")], "pg compare")
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said.format(begun=begun)}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_needs_no_jax(tmp_path: Path) -> None:
    run = store_run(tmp_path / "a", [1.0, 2.0])
    script = (
        "import sys; from pg.commands import main; "
        f"main.main(['compare', {str(run)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "assert not {'jax', 'gymnax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
