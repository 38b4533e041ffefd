"""Results as a user reads them: at once, by name, and without the libraries that made them."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pg
from pg.config import Config, Hyperparams
from pg.evaluation import Evaluation
from pg.reports import curves, tables
from pg.runs import execution, folders, results, writing

ROOT = Path(__file__).parents[2]
BEFORE = ROOT / "tests" / "data" / "run-before-renaming"
CONFIG = Config(num_envs=2, num_updates=3, hidden_sizes=(4,), preset=None)

READING = f"""
import sys
import pg
from pg.reports import comparison, curves, plots, statistics, tables
found = pg.load_results({str(BEFORE)!r})
assert pg.load({str(BEFORE)!r}).num_rows == 4
assert found.metrics["return"].shape == (1, 4), found.metrics["return"].shape
found.learning_curve()
tables.markdown([("a", "b"), ("1", "2")])
heavy = [name for name in ("jax", "gymnax", "flax", "optax") if name in sys.modules]
assert not heavy, heavy
"""


def test_results_are_read_without_jax() -> None:
    command = [sys.executable, "-c", READING]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_table_is_printed_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    before = []

    def rows() -> Iterator[tuple[str, list[str]]]:
        for name in ("a", "b"):
            before.append(capsys.readouterr().out)
            yield name, ["1", "2"]

    text = tables.printed(["x", "y"], rows())
    assert text == "| | x | y |\n| --- | --- | --- |\n| a | 1 | 2 |\n| b | 1 | 2 |"
    assert "".join([*before, capsys.readouterr().out]) == f"{text}\n"
    assert before[1] == "| a | 1 | 2 |\n"


def run_of(metrics: dict[str, np.ndarray]) -> execution.Run:
    return execution.Run({}, metrics, True, None, 1.0, 2.0)


def metrics_of(seeds: int, updates: int = 3) -> dict[str, np.ndarray]:
    shape = (seeds, updates)
    return {
        "return": np.arange(float(seeds * updates)).reshape(shape),
        "env_steps": np.full(shape, 10),
        "episodes": np.ones(shape, int),
        "nonfinite": np.zeros(shape, int),
        "skipped": np.zeros(shape, int),
    }


def test_a_summary_has_each_evaluation_over_seeds_and_of_each() -> None:
    metrics = metrics_of(3)
    metrics["nonfinite"][2, 1] = 4
    metrics["skipped"][2, 1:] = 1
    sampled = np.array([[1.0, 3.0], [5.0, 7.0], [np.nan, 0.0]])
    greedy = sampled + 1
    evaluations = {"sampled": Evaluation(sampled, sampled), "greedy": Evaluation(greedy, greedy)}
    summary = writing.summarise(run_of(metrics), evaluations, [7, 8, 9])
    assert (summary["mean"], summary["actions"], summary["episodes"]) == (4.0, "sampled", 4)
    assert summary["interval"][0] < 4.0 < summary["interval"][1]
    assert summary["standard_error"] == pytest.approx(2.0)  # of the means 2 and 6
    assert summary["greedy"]["mean"] == 5.0
    assert summary["failed_seeds"] == [9]
    first, _, last = summary["per_seed"]
    assert (first["seed"], first["mean"], first["greedy"]["mean"]) == (7, 2.0, 3.0)
    assert first["standard_error"] == pytest.approx(1.0)
    assert (last["finite"], last["not_finite_at"], last["not_finite_in"]) == (False, 1, "gradients")


def test_a_step_without_a_legal_action_is_said_and_the_mask_to_be_mended() -> None:
    metrics = metrics_of(2)
    returns = np.ones((2, 2))

    def said() -> list[str]:
        evaluations = {"sampled": Evaluation(returns, returns)}
        summary = writing.summarise(run_of(metrics), evaluations, [0, 1])
        return results.describe_failures(summary, metrics, "skip")

    metrics["nonfinite"][0, 1] = 16
    metrics["skipped"][0, 1] = 1
    skipped = "1 of 3 updates was skipped"
    assert said()[0] == f"seed 0: no action was legal at a step in update 1; {skipped}"
    assert "mask must be True for at least one action" in said()[-1]
    assert "learning rate" not in said()[-1]
    metrics["nonfinite"][0, 1] = 16 + 4
    fault = "seed 0: gradients not finite and no action was legal at a step in update 1"
    assert said()[0] == f"{fault}; {skipped}"
    for remedy in ("mask must be True for at least one action", "a smaller learning rate may help"):
        assert remedy in said()[-1]
    metrics["nonfinite"][0] = [4, 0, 0]
    assert "in update 0 the cause is the estimator or a network" in said()[-1]
    assert "a smaller learning rate" not in said()[-1]
    metrics["nonfinite"][0, 0] = 0
    metrics["nonfinite"][0, 1] = 1 + 4  # the gradients follow the rewards
    assert "the environment returned a reward or an observation that is not finite" in said()[-1]
    assert "learning rate" not in said()[-1]


def test_returns_of_an_evaluation_that_are_not_finite_fail_their_seed() -> None:
    returns = np.array([[1.0, 1.0], [np.inf, 1.0]])
    metrics = metrics_of(2)
    evaluations = {"sampled": Evaluation(returns, returns)}
    summary = writing.summarise(run_of(metrics), evaluations, [0, 1])
    assert (summary["mean"], summary["failed_seeds"]) == (1.0, [1])
    said = results.describe_failures(summary, metrics)[0]
    assert said == "seed 1: a return of the evaluation is not finite"


def test_metrics_come_back_by_run_and_name(tmp_path: Path) -> None:
    metrics = metrics_of(3)
    folders.write_setup(tmp_path, CONFIG, Hyperparams(), {"seed": 5, "seeds": 3}, {"pg": "0.1.0"})
    results.write_metrics(tmp_path, metrics, [5, 6, 7])
    found = pg.load_results(tmp_path)
    assert (found.seeds, found.summary) == ([5, 6, 7], {})
    assert found.settings["config"]["num_envs"] == 2
    assert set(found.metrics) == set(metrics)
    for name, values in metrics.items():
        np.testing.assert_array_equal(found.metrics[name], values)
    shuffled = {name: x[::-1] for name, x in results.read_metrics(tmp_path).items()}
    with pytest.raises(ValueError, match="lack updates"):
        results.by_run({**shuffled, "update": shuffled["update"] * 2}, 3)


@pytest.mark.acceptance("J8")
def test_steps_are_counted_beyond_32_bits() -> None:
    """From 2³¹ - 1024 and 2³² - 1024 on, four chunks, in what is written and drawn."""
    for start in (2**31 - 1024, 2**32 - 1024):
        each = np.array([start - 3 * (start // 4), *[start // 4] * 3, *[500] * 8], np.int32)[None]
        metrics = {"env_steps": each, "return": np.ones((1, 12)), "episodes": np.ones((1, 12), int)}
        rows = results.long_form(metrics, seed=np.arange(1))
        steps, _ = curves.seed_curves(metrics)
        for total in (rows["total_env_steps"], steps[0]):
            np.testing.assert_array_equal(total[3:], start + 500 * np.arange(9))
            assert (np.diff(total) > 0).all()
        taken = dict.fromkeys(("grad_norm", "nonfinite", "skipped"), np.zeros((1, 12)))
        done = execution.Run(None, metrics | taken, True, None, 0.0, 0.0)
        assert writing.summarise(done, {}, [0])["env_steps"] == start + 4000


def test_a_folder_that_is_no_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder of a run: give the one that pg train"):
        pg.load_results(tmp_path)


def test_a_run_that_is_being_resumed_is_read_from_its_checkpoints(tmp_path: Path) -> None:
    """Its metrics.parquet is outdated; the train command removes the summary when it resumes."""
    folders.write_setup(
        tmp_path, dataclasses.replace(CONFIG, num_updates=5), Hyperparams(), {"seeds": 2}, {}
    )
    longer = metrics_of(2, updates=5)
    results.write_metrics(tmp_path, {name: x[:, :3] for name, x in longer.items()}, [0, 1])
    (tmp_path / "checkpoints").mkdir()
    rows = results.long_form(longer, seed=np.arange(2))
    tables.write_parquet(tmp_path / "checkpoints" / "metrics-00000000-00000005.parquet", rows)
    found = pg.load_results(tmp_path)
    assert (found.metrics["return"].shape, found.summary) == ((2, 5), {})
    folders.write_json(tmp_path / "summary.json", {"status": "interrupted", "num_updates": 3})
    assert pg.load_results(tmp_path).metrics["return"].shape == (2, 3)


def test_seeds_of_a_run_are_those_of_its_rows(tmp_path: Path) -> None:
    folders.write_setup(tmp_path, CONFIG, Hyperparams(), {"seeds": 2}, {})
    results.write_metrics(tmp_path, metrics_of(2), [3, 9])
    assert pg.load_results(tmp_path).seeds == [3, 9]


def test_an_evaluation_leaves_out_its_own_returns_that_are_not_finite() -> None:
    fine, odd = np.array([[1.0, 1.0], [3.0, 3.0]]), np.array([[1.0, 1.0], [-np.inf, 3.0]])
    evaluations = {"sampled": Evaluation(fine, fine), "greedy": Evaluation(odd, odd)}
    summary = writing.summarise(run_of(metrics_of(2)), evaluations, [0, 1])
    assert (summary["mean"], summary["greedy"]["mean"], summary["failed_seeds"]) == (2.0, 1.0, [])


def test_what_was_trained_is_written_before_it_is_drawn(tmp_path: Path) -> None:
    folders.write_setup(tmp_path, CONFIG, Hyperparams(), {"seeds": 1}, {})
    state = pg.make_learner(CONFIG).init(pg.seed_key(0))
    run = run_of(metrics_of(1))._replace(states=state)

    def draw(_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        writing.write_results(tmp_path, run, {}, [0], draw)
    assert {path.name for path in tmp_path.iterdir()} >= {"metrics.parquet", "params.safetensors"}
    assert not (tmp_path / "summary.json").exists()
