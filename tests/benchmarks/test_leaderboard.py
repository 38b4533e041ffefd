"""The leaderboard of estimators: its arithmetic on gradients with known cosines, and a small
leaderboard end to end.
"""

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from safetensors import safe_open

from pg.benchmarks import leaderboard, suites
from pg.benchmarks.leaderboard import (
    CurvePoint,
    GradientEstimates,
    Measurements,
    Quality,
    Reference,
    problems,
)
from pg.benchmarks.leaderboard.measurements import read_versions, stored_snapshots
from pg.benchmarks.leaderboard.problems import (
    critic_config,
    critic_kinds,
    frozen_config,
    snapshot_shapes,
)
from pg.benchmarks.leaderboard.recommendations import SITUATIONS
from pg.commands import cli
from pg.commands import leaderboard as leaderboard_command
from pg.estimators.facts import FACTS
from pg.reports.statistics import Estimate
from pg.runs import folders, parameters

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "data" / "leaderboard-before-renaming"
P, NOISE = 400, 3.0


def estimates(
    bias: float = 0.0, seed: int = 0, count: int = 1024
) -> tuple[GradientEstimates, Reference]:
    """Gradients of length 1 along the first axis, `bias` along the second, and noise of variance 9
    per episode.
    """
    g = np.random.default_rng(seed)
    signal = np.zeros(P)
    signal[:2] = 1.0, bias
    noise = g.normal(size=(count, P)) * NOISE / math.sqrt(P * 4)  # of 4 episodes each
    return GradientEstimates(signal + noise, 4, steps=40.0, seconds=0.2), Reference(
        np.eye(P)[0], 1.0
    )


def test_the_names_of_problems_need_no_jax() -> None:
    assert tuple(leaderboard.PROBLEMS) == suites.GRADIENT_PROBLEMS
    assert set(leaderboard.COMPARED) < set(FACTS)


def test_figures_of_known_gradients_are_within_their_intervals() -> None:
    line, curve = leaderboard.assess("a", "start", "reinforce", 3, *estimates())
    assert line[:5] == ("a", "start", "reinforce", 3, 4)
    assert (line.steps_per_episode, line.seconds_per_episode) == (10.0, 0.05)
    for name, exact in {"variance": 9.0, "snr": 1 / 9, "cosine": (1 + 9 / 4) ** -0.5}.items():
        value, low, high = getattr(line, name)
        assert low <= value <= high
        assert low - 0.01 * exact < exact < high + 0.01 * exact
        assert high - low < 0.1 * exact
    for level, steps in ((0.5, line.steps_for_0_5.value), (0.9, line.steps_for_0_9.value)):
        assert steps == pytest.approx(10 * 9 * level**2 / (1 - level**2), rel=0.1)
    assert [p.episodes for p in curve] == [4 * 2**i for i in range(8)]
    assert [p.cosine.value for p in curve] == pytest.approx(
        [(1 + 9 / p.episodes) ** -0.5 for p in curve], rel=0.02
    )
    assert [p.steps for p in curve] == [10 * p.episodes for p in curve]


def test_what_is_not_reached_by_counting_is_extrapolated() -> None:
    """A cosine of 0.9 extrapolated from few estimates agrees with many estimates, within the
    interval.
    """
    few, reference = estimates(count=64)
    line, _ = leaderboard.assess("a", "start", "reinforce", 0, few, reference)
    assert line.counted_episodes == 32
    assert line.steps_for_0_9.low <= 10 * 9 * 0.81 / 0.19 <= line.steps_for_0_9.high


def test_a_biased_estimator_never_gets_there() -> None:
    """With a bias as long as the gradient the cosine tends to 0.71."""
    line, curve = leaderboard.assess("a", "start", "gae", 0, *estimates(bias=1.0))
    assert math.isinf(line.steps_for_0_9.value)
    assert line.steps_for_0_5.value < math.inf
    assert curve[-1].cosine.value == pytest.approx(2**-0.5, rel=0.05)


def test_a_noisy_reference_is_allowed_for() -> None:
    g = np.random.default_rng(5)
    found, truth = estimates()
    noise = g.normal(size=P)
    noisy = truth.gradient + (noise - noise[0] * np.eye(P)[0]) / np.linalg.norm(
        noise
    )  # a cosine of 0.71 to the truth
    cosine = float(noisy[0] / np.linalg.norm(noisy))
    line, _ = leaderboard.assess("a", "start", "reinforce", 0, found, Reference(noisy, cosine))
    exact, _ = leaderboard.assess("a", "start", "reinforce", 0, found, truth)
    assert cosine == pytest.approx(2**-0.5, rel=0.01)
    assert line.cosine.value == pytest.approx(exact.cosine.value, rel=0.05)


def test_without_a_reference_nothing_is_said_of_cosines() -> None:
    """A gradient that noise hides has no cosine; its variance and signal are reported."""
    found, truth = estimates()
    line, _ = leaderboard.assess("a", "start", "reinforce", 0, found, truth._replace(cosine=0.3))
    assert math.isnan(line.steps_for_0_5.value)
    assert math.isnan(line.steps_for_0_9.high)
    assert line.variance.value == pytest.approx(9.0, rel=0.05)
    resolved = line._replace(snapshot="end", steps_for_0_9=point(10.0), steps_for_0_5=point(5.0))
    assert "1/1" in leaderboard.leaderboard_table([line, resolved])
    assert leaderboard.steps_table([line, resolved], "start").endswith("| — |")


def test_what_is_parallel_to_the_gradient() -> None:
    assert [name for name in leaderboard.COMPARED if not FACTS[name].parallel] == [
        "undiscounted_reward_to_go",
        "standardised",
        "grpo",
        "all_action",
        "svg0",
        "deterministic_policy_gradient",
        "hindsight_credit",
        "counterfactual_contributions",
        "actor_critic",
        "gae",
        "vtrace",
        "reward_weighted_regression",
        "advantage_weighted_regression",
        "v_mpo",
    ]


def test_estimates_that_are_too_few_are_refused() -> None:
    with pytest.raises(ValueError, match="8 repetitions need at least 16 estimates, got 15"):
        leaderboard.assess("a", "start", "reinforce", 0, *estimates(count=15))


def point(value: float) -> Estimate:
    """An estimate whose interval is a point."""
    return Estimate(value, value, value)


def quality(estimator: str, steps: float, problem: str = "a", seconds: float = 1.0) -> Quality:
    """A quality of 1 in all but these: steps for a cosine of 0.9, seconds of an episode."""
    return Quality(
        problem=problem,
        snapshot="start",
        estimator=estimator,
        seed=1,
        num_episodes=8,
        steps_per_episode=1.0,
        seconds_per_episode=seconds,
        reference_cosine=1.0,
        variance=point(1.0),
        snr=point(1.0),
        cosine=point(1.0),
        steps_for_0_5=point(1.0),
        steps_for_0_9=point(steps),
        counted_episodes=8,
    )


def test_a_row_of_variances_says_of_how_many_episodes_its_cosine_is() -> None:
    rows = [quality("a", 1.0), quality("b", 1.0)._replace(num_episodes=64)]
    table = leaderboard.variance_table(rows).splitlines()[2:]
    assert [line.split("|")[4].strip() for line in table] == ["8", "64"]


def test_a_table_comes_back(tmp_path: Path) -> None:
    qualities = [quality("x", 12.0), quality("y", math.inf)]
    points = [CurvePoint("a", "start", "x", 1, 8, 80.0, 0.1, Estimate(0.5, 0.4, 0.6))]
    Measurements(qualities, points).write(tmp_path)
    assert Measurements.read(tmp_path) == Measurements(qualities, points)
    assert Measurements.read(tmp_path / "nowhere") == Measurements([], [])
    assert Measurements.read(tmp_path).select(["a"], ["y"], 1).qualities == qualities[1:]
    (tmp_path / "quality.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"quality.csv must have the columns problem, snapshot"):
        Measurements.read(tmp_path)


def test_an_estimate_takes_three_columns(tmp_path: Path) -> None:
    point = CurvePoint("a", "start", "x", 1, 8, 80.0, 0.1, Estimate(0.5, 0.4, 0.6))
    Measurements([quality("x", 12.0)], [point]).write(tmp_path)
    header, line = (tmp_path / "cosines.csv").read_text().splitlines()
    assert header == (
        "problem,snapshot,estimator,seed,episodes,steps,seconds,cosine,cosine_low,cosine_high"
    )
    assert line == "a,start,x,1,8,80,0.1,0.5,0.4,0.6"


def test_tables_with_former_names_of_columns_are_read(tmp_path: Path) -> None:
    """Older files have former names; new measurements are written under the current ones."""
    measurements = Measurements.read(BEFORE)
    assert (len(measurements.qualities), len(measurements.points)) == (3, 8)
    measurements.write(tmp_path)
    assert Measurements.read(tmp_path) == measurements
    for name in ("quality.csv", "cosines.csv"):
        stored = ROOT / "docs" / "leaderboard" / name
        today = (tmp_path / name).read_text().splitlines()[0]
        assert today == stored.read_text().splitlines()[0] != (BEFORE / name).read_text().split()[0]
    first = measurements.qualities[0]
    assert (first.problem, first.snapshot, first.estimator) == ("gridworld", "start", "reinforce")
    assert first.steps_for_0_9 == (783.8, 652.5, 925.9)
    assert measurements.points[0].cosine == (0.6311, 0.6103, 0.6505)
    measurements.write(tmp_path)
    assert Measurements.read(tmp_path) == measurements


def test_policies_with_the_former_name_of_their_file_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not trained again."""
    folder = tmp_path / "policies" / "garnet"
    snapshot = small_snapshot("garnet")
    for name in leaderboard.SNAPSHOTS:
        (folder / name).mkdir(parents=True)
        tree = {"policy": snapshot.policy, "critics": snapshot.critics}
        parameters.write_params(folder / name, tree, snapshot.normaliser)
    facts = {
        name: {"updates": 7, "explained": snapshot.explained} for name in leaderboard.SNAPSHOTS
    }
    folders.write_json(folder / "stages.json", facts)
    monkeypatch.delattr("pg.benchmarks.leaderboard.measurements.train_snapshots")
    assert [x.updates for x in stored_snapshots("garnet", tmp_path)] == [7, 7, 7]


def test_policies_without_all_critics_are_not_measured(tmp_path: Path) -> None:
    """Nor are they retrained: the folder's rows would be of other policies, by rounding."""
    folder = tmp_path / "policies" / "garnet"
    folder.mkdir(parents=True)
    facts = {x: {"updates": 7, "explained": {"V": 0.5, "Q": 0.5}} for x in leaderboard.SNAPSHOTS}
    folders.write_json(folder / "snapshots.json", facts)
    missing = "without the critics V with time, Q with time, h of states, h of rewards: measure"
    with pytest.raises(ValueError, match=missing):
        stored_snapshots("garnet", tmp_path)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_numbers_among_parameters_keep_their_shape(
    shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale of a critic, which was stored as [1] before."""
    snapshot = small_snapshot("garnet")

    def stored(_: object, seed: int) -> list[leaderboard.Snapshot]:
        critics = jax.tree.map(lambda x: x if x.ndim else x.reshape(shape), snapshot.critics)
        return [snapshot._replace(name=name, critics=critics) for name in leaderboard.SNAPSHOTS]

    monkeypatch.setattr("pg.benchmarks.leaderboard.measurements.train_snapshots", stored)
    end = stored_snapshots("garnet", tmp_path)[-1]
    chex.assert_trees_all_equal_shapes_and_dtypes(end.critics, snapshot.critics)
    with safe_open(tmp_path / "policies/garnet/end/params.safetensors", framework="numpy") as file:
        assert tuple(file.get_slice("params/critics/V/scale").get_shape()) == shape


def test_the_leaderboard_compares_with_the_best_of_each_problem() -> None:
    qualities = [
        quality("x", 100.0),
        quality("y", 200.0, seconds=0.1),
        quality("x", 50.0, "b"),
        quality("y", math.inf, "b"),
    ]
    rows = leaderboard.leaderboard_table(qualities).splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[0][:3] == ["`x`", "1.00×", "3.00×"]  # medians of 1 and 1, and of 5 and 1
    assert cells[1][-1] == "1/2"


def test_a_situation_whose_estimators_were_not_measured_has_no_winner() -> None:
    """The cheapest estimator of a more restricted situation does not tell what a critic of the
    actions would give.
    """
    rows = [quality("time_baseline", 3.0), quality("state_value", 2.0)]
    found = [leaderboard.recommended(rows, x, ["a"]) for x in SITUATIONS]
    assert [x and x.estimator for x in found[:2]] == ["time_baseline", "state_value"]
    assert found[2:] == [None] * 4
    rows += [quality("trajectory_control_variate", 4.0), quality("gae", 5.0)]
    found = [leaderboard.recommended(rows, x, ["a"]) for x in SITUATIONS]
    assert [x and x.estimator for x in found[2:]] == ["state_value", None, "state_value", None]


def test_rows_of_another_share_stay_and_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share of 1 is 512 estimates of 8 episodes on garnet, in repetitions of 64."""
    rows = [
        quality("reinforce", 2.0, "garnet")._replace(snapshot=name, counted_episodes=512)
        for name in leaderboard.SNAPSHOTS
    ]
    Measurements(rows, []).write(tmp_path)
    leaderboard.measure(["garnet"], ["reinforce"], tmp_path)
    assert capsys.readouterr().out == ""
    leaderboard.measure(["garnet"], ["reinforce"], tmp_path, share=16.0)
    said = capsys.readouterr().out
    assert "note: garnet start: reinforce: " in said
    assert "than share 16 and num_episodes 8 give, and they stay" in said
    leaderboard.measure(["garnet"], ["reinforce"], tmp_path, num_episodes=4)
    assert "than share 1 and num_episodes 4 give" in capsys.readouterr().out


def test_a_share_with_too_few_estimates_is_refused_before_a_policy_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A share of 0.02 is 10 estimates on garnet."""
    said = (
        "^share must be larger: 0.02 gives 10 estimates of reinforce on garnet, and 8 repetitions "
        "need at least 16$"
    )
    with pytest.raises(ValueError, match=said):
        leaderboard.measure(["garnet"], ["reinforce"], tmp_path, share=0.02)
    assert not (tmp_path / "policies").exists()
    # what is measured already is not affected
    rows = [
        quality("reinforce", 2.0, "garnet")._replace(snapshot=name, counted_episodes=512)
        for name in leaderboard.SNAPSHOTS
    ]
    Measurements(rows, []).write(tmp_path)
    leaderboard.measure(["garnet"], ["reinforce"], tmp_path, share=0.02)
    assert "they stay" in capsys.readouterr().out
    # nor is it hidden by what cannot be measured
    both = ["reinforce", "reward_to_go"]
    shown = leaderboard.measure(["garnet"], both, tmp_path, share=0.02)
    assert {row.estimator for row in shown.qualities} == {"reinforce"}
    assert "garnet: reward_to_go: not measured" in capsys.readouterr().out


def test_agreement_counts_the_first_three() -> None:
    names = "abcd"
    first = [quality(n, i + 1.0) for i, n in enumerate(names)]
    assert leaderboard.agreement(
        first, [quality(n, m) for n, m in zip(names, (3, 2, 1, 4), strict=True)]
    ) == (1, 1)
    assert leaderboard.agreement(
        first, [quality(n, m) for n, m in zip(names, (3, 2, 5, 4), strict=True)]
    ) == (0, 1)


def test_the_exact_gradient_is_the_mean_of_unbiased_estimates() -> None:
    """On a table, through the same networks and rollouts as everywhere else."""
    snapshot = small_snapshot("garnet")
    reference = leaderboard.reference_gradient("garnet", snapshot, 0)
    assert reference.cosine == 1.0
    found = leaderboard.estimate_gradients("garnet", snapshot, "leave_one_out", 1).gradients
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    moves = error > 0
    assert np.abs((found.mean(axis=0) - reference.gradient)[moves] / error[moves]).max() < 4.5
    np.testing.assert_allclose(reference.gradient[~moves], 0.0, atol=1e-6)


def small_snapshot(name: str) -> leaderboard.Snapshot:
    """A snapshot without training: random parameters in the shapes of the problem."""
    like = snapshot_shapes(name)
    draws = jax.random.key(0)

    def filled(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return 0.3 * jax.random.normal(draws, leaf.shape, leaf.dtype)

    policy, critics = jax.tree.map(filled, (like.policy, like.critics))
    explained = dict.fromkeys(critics, 0.5)
    normaliser = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), like.normaliser)
    return leaderboard.Snapshot("start", 0, policy, critics, explained, normaliser)


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("garnet", {"h of states", "h of rewards"}),
        ("CartPole-v1", set()),
        ("Pendulum-v1", {"Q of sinusoids", "Q network"}),
    ],
)
def test_critics_are_of_the_kinds_that_a_problem_can_have(name: str, others: set[str]) -> None:
    """A hindsight distribution of short episodes, functions of the action of continuous ones."""
    with_any = {"V", "Q", "V with time", "Q with time"}
    assert set(critic_kinds(leaderboard.PROBLEMS[name].settings()[0])) == with_any | others


@pytest.mark.parametrize(
    ("problem", "estimator"),
    [
        ("garnet", "counterfactual_contributions"),
        pytest.param("garnet", "hindsight_credit", marks=pytest.mark.slow),
        pytest.param("Pendulum-v1", "all_action:action_critic=network", marks=pytest.mark.slow),
        pytest.param("Pendulum-v1", "all_action:action_critic=sinusoids", marks=pytest.mark.slow),
    ],
)
def test_estimators_take_the_critic_of_their_kind(problem: str, estimator: str) -> None:
    found = leaderboard.estimate_gradients(
        problem, small_snapshot(problem), estimator, 1, num_episodes=2, share=0.02
    )
    assert np.isfinite(found.gradients).all()
    assert np.abs(found.gradients).max() > 0


@pytest.mark.slow
def test_a_hindsight_distribution_is_fitted_to_the_policy() -> None:
    """The range goes from the policy itself, which knows nothing of later steps, to a distribution
    that does.
    """
    config = leaderboard.PROBLEMS["garnet"].settings()[0]
    snapshot = small_snapshot("garnet")
    fit_config = critic_config(config, "h of states", 256, critic_hidden_sizes=(32,))
    fit = problems._make_fit(fit_config, 30, passes=1)
    _, known = fit(snapshot.policy, snapshot.normaliser, jax.random.key(0))
    assert 0.005 < float(known) < 0.5


def test_all_estimators_see_the_same_episodes() -> None:
    """Common random numbers: the same steps for the same seed, others for another."""
    snapshot = small_snapshot("gridworld")
    a, b = (
        leaderboard.estimate_gradients("gridworld", snapshot, name, 3, share=0.1)
        for name in ("reinforce", "batch_mean")
    )
    assert a.steps == b.steps
    assert a.gradients.shape == b.gradients.shape == (51, a.gradients.shape[1])
    c = leaderboard.estimate_gradients("gridworld", snapshot, "reinforce", 4, share=0.1)
    assert a.steps != c.steps


def test_a_folder_is_made_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pg.benchmarks.leaderboard.measurements.stored_snapshots", lambda *_: [])
    out = tmp_path / "results" / "mine"
    assert not leaderboard.measure(["garnet"], ["reinforce"], out).qualities
    assert [software["device"] for software in read_versions(out)] == [jax.devices()[0].device_kind]


def test_a_frozen_config_keeps_the_problem_and_the_networks() -> None:
    config, _ = leaderboard.PROBLEMS["Pendulum-v1"].settings()
    frozen = frozen_config(config, "leave_one_out", 8)
    assert (frozen.env, frozen.hidden_sizes, frozen.normalise_observations) == (
        "Pendulum-v1",
        config.hidden_sizes,
        True,
    )
    assert (frozen.collect, frozen.num_envs, frozen.scale_rewards, frozen.advantages) == (
        "episodes",
        8,
        False,
        "raw",
    )


def run(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "experiments" / script), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--problems", "CartPole"], "CartPole-v1"),
        (["--estimators", "gpomdp"], "gpomdp is for windows"),
        (["--num-episodes", "3"], "--num-episodes must be even and at least 2, got 3"),
        (["--share", "0"], "share must be above 0, got 0.0"),
    ],
)
def test_a_mistake_is_one_sentence(flags: list[str], said: str) -> None:
    for script in ("estimator_variance.py", "estimator_benchmark.py"):
        done = run(script, *flags)
        assert done.returncode == 2
        assert said in done.stderr


def test_a_report_on_a_folder_without_measurements_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "cache_compilations", lambda: None)
    with pytest.raises(SystemExit):
        leaderboard_command.main(["--from", str(tmp_path)])
    assert f"{tmp_path} holds no measurements" in " ".join(capsys.readouterr().err.split())


def test_who_cannot_be_measured_is_told_with_the_reason(tmp_path: Path) -> None:
    reasons = {
        "q_prop": "its actions are discrete, and the estimator is for continuous ones",
        "hindsight_credit": "there is no critic h of states: Q is for a single action",
    }
    with pytest.raises(ValueError, match="nothing can be measured") as caught:
        leaderboard.measure(["CartPole-v1"], list(reasons), tmp_path)
    for name, reason in reasons.items():
        assert f"CartPole-v1: {name}: not measured, as {reason}" in str(caught.value)


@pytest.mark.slow
def test_the_same_command_continues(tmp_path: Path) -> None:
    """Two estimators, then a third; policies are trained once; the tables and pictures exist."""
    flags = ["--problems", "garnet", "--share", "0.1", "--out", str(tmp_path)]
    first = run("estimator_variance.py", *flags, "--estimators", "reinforce", "leave_one_out")
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("min left") == 6
    policies = (tmp_path / "policies" / "garnet" / "end" / "params.safetensors").read_bytes()
    second = run(
        "estimator_benchmark.py",
        *flags,
        "--estimators",
        "reinforce",
        "leave_one_out",
        "state_value",
    )
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("min left") == 3
    assert "| `state_value`" in second.stdout
    assert (
        tmp_path / "policies" / "garnet" / "end" / "params.safetensors"
    ).read_bytes() == policies
    names = {"variance", "cosine_steps", "cosine_seconds", "leaderboard"}
    assert (
        {path.stem for path in tmp_path.glob("*.svg")}
        == {path.stem for path in tmp_path.glob("*.png")}
        == names
    )
    facts = json.loads((tmp_path / "policies" / "garnet" / "snapshots.json").read_text())
    assert [one["updates"] for one in facts.values()] == [0, 50, 100]
    qualities = Measurements.read(tmp_path).qualities
    assert {(x.estimator, x.snapshot) for x in qualities} == {
        (e, s) for e in ("reinforce", "leave_one_out", "state_value") for s in leaderboard.SNAPSHOTS
    }


def test_the_leaderboard_of_the_documentation_is_that_of_the_stored_table() -> None:
    """As `experiments/estimator_benchmark.py --from docs/leaderboard --report
    docs/which_estimator.md` writes it.
    """
    text = (ROOT / "docs" / "which_estimator.md").read_text()
    shown = text.split(leaderboard.MARKS[0])[1].split(leaderboard.MARKS[1])[0]
    stored = Measurements.read(ROOT / "docs" / "leaderboard")
    best = leaderboard.chosen(stored, 1)

    def selected(others: Iterable[str]) -> list[Quality]:
        wanted = [*leaderboard.COMPARED, *others]
        return stored.select(leaderboard.PROBLEMS, wanted, 1).qualities

    timed = selected(leaderboard.TIMED.values())
    report = leaderboard.report(selected(best.values()), best, timed=timed)
    assert shown.strip() == report.strip()


def test_the_advice_of_the_page_is_what_is_cheapest_there() -> None:
    """The names of its first paragraph, in the order of the situations."""
    text = (ROOT / "docs" / "which_estimator.md").read_text()
    advised = re.findall(r"`(\w+)`", text.split("\n\n")[1])
    stored = Measurements.read(ROOT / "docs" / "leaderboard")
    rows = stored.select(leaderboard.PROBLEMS, leaderboard.COMPARED, 1).qualities
    found = [leaderboard.recommended(rows, x, list(leaderboard.PROBLEMS)) for x in SITUATIONS]
    assert advised == list(dict.fromkeys(x.estimator for x in found if x is not None))
