"""Evaluation during training: training is the same without it, the curve and the best parameters
are those of the recorded updates, and a killed run resumes to the same bits.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from small import TINY

import pg
from pg.commands import cli, evaluate, job, replay
from pg.evaluation import evaluate as evaluated
from pg.runs import checkpoints, execution, parameters, results
from pg.runs.periodic import Plan
from pg.seeds import progress_key

CONFIG = dataclasses.replace(TINY, num_updates=7, normalise_observations=True)
SEEDS = (3, 4)
PLAN = Plan(every=2, episodes=5, at_end=False)
COLUMNS = {"seed": np.asarray(SEEDS)}
ABOUT: dict[str, Any] = {"setup": CONFIG.to_json(), "versions": {}}


class Kept(NamedTuple):
    """A run in one go, with the states after every update."""

    run: execution.Run
    states: dict[int, Any]


def trained(plan: Plan | None, **more: Any) -> execution.Run:
    return execution.run(CONFIG, None, SEEDS, plan=plan, **more)


def state(tree: Any) -> Any:
    """The stored training state."""
    return tree if isinstance(tree, tuple) else type(LIKE)(**{k: tree[k] for k in LIKE._fields})


LIKE = jax.eval_shape(pg.make_learner(CONFIG, CONFIG.hyperparams()).init, jax.random.key(0))


@pytest.fixture(scope="module")
def kept() -> Kept:
    states: dict[int, Any] = {}

    def keep(done: int, fetch: Any, *_: Any) -> None:
        states[done] = jax.tree.map(np.array, state(fetch()))

    return Kept(trained(PLAN, on_checkpoint=keep), states)


def same(a: Any, b: Any) -> bool:
    leaves = [jax.tree.leaves(tree) for tree in (a, b)]
    assert len(leaves[0]) == len(leaves[1])
    return all(np.array_equal(x, y, equal_nan=True) for x, y in zip(*leaves, strict=True))


def test_training_has_the_bits_that_it_has_without(kept: Kept) -> None:
    without = trained(None)
    assert same(without.states, kept.run.states)
    assert set(kept.run.metrics) - set(without.metrics) == set(results.EVALUATED)
    for name, x in without.metrics.items():
        assert np.array_equal(x, kept.run.metrics[name], equal_nan=True), name
    assert without.best is None


def test_an_evaluation_is_of_the_parameters_of_its_update_with_keys_of_its_own(
    kept: Kept,
) -> None:
    scores = kept.run.metrics["eval_return"]
    assert np.isfinite(scores).all(axis=0).tolist() == [u in (1, 3, 5) for u in range(7)]
    assert (np.isnan(scores) == np.isnan(kept.run.metrics["eval_standard_error"])).all()
    for done in (2, 4, 6):
        for i, seed in enumerate(SEEDS):
            of_seed = jax.tree.map(lambda x, i=i: x[i], kept.states[done])
            key = jax.random.fold_in(progress_key(seed), done)
            found = evaluated(CONFIG, of_seed.params.policy, key, 5, normaliser=of_seed.normaliser)
            assert scores[i, done - 1] == pytest.approx(float(found.returns.mean()), rel=1e-6)


def test_the_keys_are_neither_of_training_nor_of_the_final_evaluation() -> None:
    keys = {tuple(jax.random.key_data(key).tolist()) for key in jax.random.split(jax.random.key(3))}
    assert tuple(jax.random.key_data(progress_key(3)).tolist()) not in keys


def test_the_best_parameters_are_those_of_the_highest_evaluation_of_each_seed(kept: Kept) -> None:
    best, scores = kept.run.best, kept.run.metrics["eval_return"]
    assert best is not None
    for i in range(len(SEEDS)):
        done = int(np.nanargmax(scores[i])) + 1
        assert (best.update[i], best.score[i]) == (
            done,
            scores[i].max(where=scores[i] == scores[i], initial=-1.0),
        )
        then = kept.states[done]
        own = jax.tree.map(lambda x, i=i: x[i], (best.params, best.normaliser))
        assert same(own, jax.tree.map(lambda x, i=i: x[i], (then.params, then.normaliser)))
    assert len(set(scores[np.isfinite(scores)].tolist())) > 2  # the choice means something


class KilledError(Exception):
    """A process that ends between two updates."""


@pytest.mark.parametrize("last", [pytest.param(1, marks=pytest.mark.slow), 2, 5])
def test_a_run_that_is_killed_has_the_same_evaluations_and_the_same_best(
    last: int, kept: Kept, tmp_path: Path
) -> None:
    """KilledError right after the next evaluation, of which the checkpoint knows nothing."""
    keeper = checkpoints.CheckpointWriter(tmp_path, ABOUT, COLUMNS, updates=1)

    def keep(done: int, fetch: Any, metrics: Any, _: bool) -> None:
        if done > last:
            raise KilledError
        keeper(done, fetch, metrics, True)

    with pytest.raises(KilledError):
        trained(PLAN, on_checkpoint=keep)
    found = checkpoints.restore(tmp_path, LIKE, ABOUT, len(SEEDS))
    assert found is not None
    assert found.partial.updates <= last
    assert (found.partial.best is None) == (found.partial.updates < 2)
    again = trained(PLAN, partial=found.partial)
    assert same(again.states, kept.run.states)
    assert same(again.metrics, kept.run.metrics)
    assert same(again.best, kept.run.best)


def test_evaluations_may_begin_and_end_where_a_run_goes_on(kept: Kept, tmp_path: Path) -> None:
    """Its metrics have the columns throughout, and the best stays."""
    short = dataclasses.replace(CONFIG, num_updates=3)
    keeper = checkpoints.CheckpointWriter(tmp_path, ABOUT, COLUMNS)
    first = execution.run(short, None, SEEDS, on_checkpoint=keeper)
    assert "eval_return" not in first.metrics
    found = checkpoints.restore(tmp_path, LIKE, ABOUT, len(SEEDS))
    assert found is not None
    longer = dataclasses.replace(CONFIG, num_updates=5)
    keeper = checkpoints.CheckpointWriter(tmp_path, ABOUT, COLUMNS, partial=found.partial)
    execution.run(longer, None, SEEDS, on_checkpoint=keeper, partial=found.partial, plan=PLAN)
    found = checkpoints.restore(tmp_path, LIKE, ABOUT, len(SEEDS))
    assert found is not None
    expected = np.where(np.arange(5) == 3, kept.run.metrics["eval_return"][:, :5], np.nan)
    assert np.array_equal(found.partial.metrics["eval_return"], expected, equal_nan=True)
    last = trained(None, partial=found.partial)
    assert same(last.states, kept.run.states)
    assert last.best is not None
    assert last.best.update.tolist() == [4, 4]
    assert last.metrics["eval_return"].shape == (2, 7)


@pytest.mark.parametrize("plan", [Plan(every=10, episodes=5), Plan(minutes=1e9, episodes=5)])
def test_the_last_update_is_evaluated_whatever_its_number(plan: Plan, kept: Kept) -> None:
    """Also of a run with fewer updates than there are from one evaluation to the next."""
    run = execution.run(dataclasses.replace(CONFIG, num_updates=2), None, SEEDS, plan=plan)
    expected = np.where(np.arange(2) == 1, kept.run.metrics["eval_return"][:, :2], np.nan)
    assert np.isfinite(expected[:, 1]).all()
    assert np.array_equal(run.metrics["eval_return"], expected, equal_nan=True)
    assert run.best is not None
    assert run.best.update.tolist() == [2, 2]


def test_a_run_with_more_updates_added_has_the_evaluations_of_a_single_one(
    tmp_path: Path,
) -> None:
    """The evaluation after the previous run's last update is not part of it, though it was the
    best.
    """
    plan = Plan(every=2, episodes=5)
    keeper = checkpoints.CheckpointWriter(tmp_path, ABOUT, COLUMNS)
    short = dataclasses.replace(CONFIG, num_updates=3)
    before = execution.run(short, None, SEEDS, on_checkpoint=keeper, plan=plan)
    assert np.isfinite(before.metrics["eval_return"][:, 2]).all()
    assert before.best is not None
    assert 3 in before.best.update
    found = checkpoints.restore(tmp_path, LIKE, ABOUT, len(SEEDS))
    assert found is not None
    longer = dataclasses.replace(CONFIG, num_updates=5)
    added = execution.run(longer, None, SEEDS, partial=found.partial, plan=plan)
    single = execution.run(longer, None, SEEDS, plan=plan)
    assert np.isnan(single.metrics["eval_return"][:, 2]).all()
    assert same(added.metrics, single.metrics)
    assert same(added.best, single.best)
    # killed after its last checkpoint and before its results
    again = execution.run(short, None, SEEDS, partial=found.partial, plan=plan)
    assert same(again.metrics, before.metrics)
    assert same(again.best, before.best)


def test_training_ends_at_the_return_that_is_asked_for_and_can_go_on(kept: Kept) -> None:
    every = kept.run.metrics["eval_return"].min(axis=0)  # of the seed that is behind
    target = float(np.nanmax(every))
    first = int(np.nanargmax(every >= target)) + 1
    plan = PLAN._replace(stop_at_return=target)
    ended = trained(plan)
    assert (ended.reached, ended.finished, ended.metrics["return"].shape[1]) == (True, False, first)
    assert same(ended.states, kept.states[first])
    partial = execution.PartialRun(ended.states, ended.metrics, ended.best)
    assert trained(plan, partial=partial).metrics["return"].shape[1] == first
    higher = trained(plan._replace(stop_at_return=1e9), partial=partial)
    assert (higher.reached, higher.finished) == (False, True)
    assert same(higher.states, kept.run.states)
    assert same(higher.metrics, kept.run.metrics)


def test_by_the_clock_there_is_one_after_every_chunk(kept: Kept) -> None:
    run = trained(Plan(minutes=0.0, episodes=5))
    assert same(run.states, kept.run.states)
    known = np.isfinite(run.metrics["eval_return"])
    assert known[:, -1].all()
    both = known & np.isfinite(kept.run.metrics["eval_return"])
    assert both.any()
    assert np.array_equal(run.metrics["eval_return"][both], kept.run.metrics["eval_return"][both])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the train command that ended at a return."""
    config = pg.Config(num_updates=8, num_envs=4, hidden_sizes=(8,), horizon=40, preset=None)
    out = tmp_path_factory.mktemp("results")
    options = job.Options(
        seed=3,
        seeds=2,
        eval_episodes=4,
        out=out,
        name="mine",
        eval_every=2,
        stop_at_return=5.0,
        film=True,
    )
    assert job.run(config, config.hyperparams(), options) == 0
    return out / "CartPole-v1" / "reinforce" / "mine"


def test_the_folder_tells_how_the_run_ended_and_what_its_best_parameters_have(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best parameters are judged on episodes that did not select them."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "0")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["num_updates"]) == ("reached", 2)
    assert [row["best"]["update"] for row in summary["per_seed"]] == [2, 2]
    assert summary["best"]["mean"] == summary["mean"]  # the best are the last ones here
    for name in ("policy.gif", "policy.png", "curve.png"):
        assert (folder / name).stat().st_size > 0
    found = results.load_results(folder)
    assert found.evaluation_curve().mean.value[-1] != summary["mean"]
    assert evaluate.main([str(folder), "--episodes", "4", "--best"]) == 0
    capsys.readouterr()
    again = json.loads((folder / "evaluations" / "best-sampled-4-seed3.json").read_text())
    assert (again["mean"], again["parameters"]) == (summary["best"]["mean"], "best")
    assert job.resume(folder) == 0
    assert "it ended after 2 updates, as it had a return of at least 5" in capsys.readouterr().out


@pytest.mark.slow
def test_a_replay_is_evaluated_where_the_run_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the clock, and from the update on at which its evaluations began."""
    config = dataclasses.replace(TINY, env="CartPole-v1", num_updates=2, horizon=20)
    options = job.Options(out=tmp_path, name="mine", eval_episodes=4)
    assert job.run(config, config.hyperparams(), options) == 0
    longer = dataclasses.replace(config, num_updates=4)
    options = dataclasses.replace(options, eval_minutes=0.0)
    assert job.run(longer, config.hyperparams(), options) == 0
    (folder,) = tmp_path.glob("*/*/mine")
    metrics = results.read_metrics(folder)
    assert np.isnan(metrics["eval_return"]).tolist() == [True, True, False, False]
    assert replay.main([str(folder)]) == 0
    assert "identical: " in capsys.readouterr().out


def test_a_replay_tells_a_number_from_nan() -> None:
    lines = replay.compared("column", {"x": np.array([1.0, 2.0])}, {"x": np.array([np.nan, 2.0])})
    assert lines == ["column x: NaN in only one of the two in 1 of 2 places"]
    lines = replay.compared("leaf", {"x": np.array([1.0, 2.0])}, {"x": np.array([np.nan, 2.5])})
    assert lines == ["leaf x: NaN in only one of the two in 1 of 2 places, largest difference 0.5"]


def test_the_best_policy_acts(folder: Path) -> None:
    name = parameters.BEST
    last = (folder / "params.safetensors").read_bytes()
    obs = np.zeros((4,), np.float32)
    assert pg.load_policy(folder, best=True)(obs) == pg.load_policy(folder)(obs)
    assert (folder / name).read_bytes() == last  # of a run whose best are the last
    (folder / name).rename(folder / "elsewhere")
    try:
        with pytest.raises(ValueError, match="has no best parameters, as it was not evaluated"):
            pg.load_policy(folder, best=True)
    finally:
        (folder / "elsewhere").rename(folder / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_every": 0}, "eval_every must be a whole number of at least 1, got 0"),
        ({"eval_minutes": -1.0}, "eval_minutes must be at least 0, got -1.0"),
        ({"stop_at_return": 1.0}, "needs evaluations during training: give --eval-every K"),
        ({"stop_at_return": float("nan"), "eval_every": 1}, "must be a number, got nan"),
    ],
)
def test_a_mistake_is_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job.Options(**options)


def test_a_film_of_what_has_no_drawing_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(TINY, num_updates=2)
    options = job.Options(out=tmp_path, film=True)
    assert job.run(config, config.hyperparams(), options) == cli.MISTAKE
    assert "cannot be drawn" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
