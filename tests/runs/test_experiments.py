"""The train command as a user meets it: what it writes, its answers to mistakes, and how it is
interrupted.
"""

import dataclasses
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pandas
import polars
import pytest
from scripts import programs, refused_without_jax, run, run_with_imports

from pg.config import Config, Hyperparams
from pg.evaluation import evaluate
from pg.runs import execution, folders, parameters, results
from pg.train import make_learner, make_train

ROOT = Path(__file__).parents[2]
SMALL = ("--num-updates", "4", "--num-envs", "4", "--hidden-sizes", "8", "--eval-episodes", "5")
EVERYTHING = {
    "config.json",
    "versions.json",
    "metrics.parquet",
    "params.safetensors",
    "summary.json",
}
# The line on the wall time: the whole, and its parts.
TIMES = re.compile(
    r"steps; ([\d.]+) s: start ([\d.]+), compilation ([\d.]+), training ([\d.]+), "
    r"evaluation ([\d.]+), writing ([\d.]+)\n"
)
EVERYTHING |= {"curve.png", "curve.svg", "checkpoints", ".lock"}


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("results")
    words = ("--estimator", "leave_one_out", "--seeds", "2", "--seed", "3", "--out", str(out))
    done = run("train.py", *SMALL, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout, Path(done.stdout.strip().splitlines()[-1])


def test_it_says_what_it_does_and_where_it_is(two_seeds: tuple[str, Path]) -> None:
    printed, folder = two_seeds
    assert "leave_one_out on CartPole-v1: 4 updates of 4 complete episodes" in printed
    assert "planned: at most 8,000 environment steps per seed" in printed
    for word in (
        "settings of training: num_updates=4, num_envs=4, hidden_sizes=(8,)",
        "--verbose",
        "return ",
        "grad norm ",
        "entropy ",
        "steps/s",
        " left",
    ):
        assert word in printed
    assert "final evaluation, 10 episodes, sampled actions" in printed
    assert {path.name for path in folder.iterdir()} == EVERYTHING


def test_the_summary(two_seeds: tuple[str, Path]) -> None:
    summary = json.loads((two_seeds[1] / "summary.json").read_text())
    seeds = summary["per_seed"]
    assert [row["seed"] for row in seeds] == [3, 4]
    means = [row["mean"] for row in seeds]
    assert summary["mean"] == pytest.approx(np.mean(means))
    assert summary["standard_error"] == pytest.approx(np.std(means, ddof=1) / 2**0.5)
    assert (
        summary["min"]
        == min(row["min"] for row in seeds)
        <= summary["max"]
        == max(row["max"] for row in seeds)
    )
    assert (summary["episodes"], seeds[0]["episodes"], summary["status"]) == (10, 5, "finished")
    assert summary["env_steps"] == sum(row["env_steps"] for row in seeds)
    parts = ("start", "compile", "train", "evaluate", "write")
    seconds = [summary[f"{part}_seconds"] for part in parts]
    assert min(seconds) > 0
    whole, *said = map(float, TIMES.findall(two_seeds[0])[0])
    assert whole == pytest.approx(sum(seconds), abs=0.06)
    assert said == pytest.approx(seconds, abs=0.06)
    assert all(row["finite"] for row in seeds)


def test_pandas_and_polars_read_the_metrics(two_seeds: tuple[str, Path]) -> None:
    path = two_seeds[1] / "metrics.parquet"
    frame = pandas.read_parquet(path)
    assert polars.read_parquet(path).shape == frame.shape
    assert list(frame.columns[:3]) == ["seed", "update", "total_env_steps"]
    assert {"return", "grad_norm", "entropy", "env_steps", "length", "episodes"} <= set(
        frame.columns
    )
    assert frame.seed.tolist() == [3] * 4 + [4] * 4
    last = frame[frame["update"] == 3].total_env_steps
    assert last.tolist() == frame.groupby("seed").env_steps.sum().tolist()
    again = results.read_metrics(two_seeds[1])
    np.testing.assert_array_equal(again["return"], frame["return"])


def test_parameters_and_settings_come_back(two_seeds: tuple[str, Path]) -> None:
    _, folder = two_seeds
    config, hyperparams = folders.read_setup(folder)
    assert (config.estimator, config.num_envs, config.hidden_sizes) == ("leave_one_out", 4, (8,))
    assert hyperparams == Hyperparams()
    like = jax.eval_shape(make_learner(config).init, jax.random.key(0)).params
    params = parameters.read_params(folder, like)
    seed = jax.tree.map(lambda x: x[0], params)  # seed 3
    _, key = execution.seed_keys([3])
    again = evaluate(config, seed.policy, key[0], 5)
    summary = json.loads((folder / "summary.json").read_text())
    assert float(again.returns.mean()) == pytest.approx(summary["per_seed"][0]["mean"])
    with pytest.raises(ValueError, match="parameters of another network"):
        parameters.read_params(folder, {"policy": like.policy["params"]})
    wider = jax.eval_shape(
        make_learner(dataclasses.replace(config, hidden_sizes=(9,))).init, jax.random.key(0)
    ).params
    with pytest.raises(ValueError, match=r"policy/params/torso/Dense_0/kernel is F32\[2,4,8\]"):
        parameters.read_params(folder, wider)


def test_the_script_trains_what_the_function_trains(two_seeds: tuple[str, Path]) -> None:
    """`make_train(config)(key)` with the first half of `key(seed)`; within rounding, for vmapped
    seeds.
    """
    config, hyperparams = folders.read_setup(two_seeds[1])
    _, metrics = jax.jit(make_train(config))(execution.seed_keys([3])[0][0], hyperparams)
    frame = pandas.read_parquet(two_seeds[1] / "metrics.parquet")
    np.testing.assert_allclose(metrics["grad_norm"], frame[frame.seed == 3].grad_norm, rtol=1e-3)


def test_versions_are_recorded(two_seeds: tuple[str, Path]) -> None:
    versions = json.loads((two_seeds[1] / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert {
        "python",
        "gymnax",
        "optax",
        "flax",
        "device",
        "backend",
        "git_commit",
        "git_dirty",
    } <= set(versions)


def test_infinite_clipping_survives_json(tmp_path: Path) -> None:
    folders.write_setup(tmp_path, Config(preset=None), Hyperparams(max_grad_norm=float("inf")), {})
    assert folders.read_setup(tmp_path)[1].max_grad_norm == float("inf")


MISTAKES = [
    (["--env", "CartPol-v1"], "unknown env 'CartPol-v1': did you mean 'CartPole-v1'"),
    (["--env", "MNISTBandit-bsuite"], "cannot run: gymnax downloads"),
    (["--estimator", "renforce"], "unknown estimator 'renforce': did you mean 'reinforce'"),
    (["--collect", "windows"], "needs collect='episodes'"),
    (["--estimator", "leave_one_out", "--collect", "windows"], "needs collect='episodes'"),
    (["--num-envs", "-3"], "--num-envs must be a whole number of at least 1, got -3"),
    (["--gamma", "1.5"], "gamma must be in [0, 1], got 1.5"),
    (["--gae-lambda", "2"], "--gae-lambda must be in [0, 1]"),
    (["--learning-rate", "fast"], "--learning-rate must be a number, got 'fast'"),
    (["--num-updates", "2.5"], "--num-updates must be a whole number, got '2.5'"),
    (["--optimizer", "sdg"], "'sgd'"),
    (["--learning-rat", "0.1"], "--learning-rate"),
    (
        ["--env-params", "gravity"],
        "--env-params must be NAME=VALUE with a number, true or false, got",
    ),
    (["--seeds", "0"], "seeds must be a whole number of at least 1, got 0"),
    (["--eval-episodes", "-1"], "--eval-episodes must be"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_code_2_without_jax(
    arguments: list[str], message: str
) -> None:
    done = refused_without_jax("train.py", *arguments)
    assert message in " ".join((done.stderr + done.stdout).replace("│", " ").split())


def test_what_comes_before_a_mistake_is_seen() -> None:
    """A wrong parameter is known only once the environment has been made, by jax."""
    with pytest.raises(AssertionError, match="jax"):
        refused_without_jax("train.py", "--env-params", "gravty=9")
    code = "import jax; jax.jit(lambda x: x + 1)(0); jax.lax.map(abs, jax.numpy.zeros(3))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAX_LOG_COMPILES": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert programs(done.stderr) == ["<lambda>", "scan"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env-params", "gravty=9"], "did you mean 'gravity'"),
        *(
            pytest.param(words, said, marks=pytest.mark.slow)  # refused where the first is
            for words, said in (
                (["--action-distribution", "censored"], "'censored' is for continuous actions"),
                (["--network", "cnn"], "needs observations [height, width, channels]"),
            )
        ),
        (["--out", "{file}"], "cannot make a folder for the run"),
    ],
)
def test_a_mistake_that_only_the_environment_knows(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run("train.py", *[word.format(file=tmp_path / "file") for word in arguments])
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "score"),
    [
        pytest.param(
            ["--eval-episodes", "5"],
            "5 ± 0 (standard error), min 5, max 5",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--eval-episodes", "1"],
            "5 ± — (standard error), min 5, max 5",
            marks=pytest.mark.slow,
        ),
        (["--seeds", "2"], "5 ± 0 (standard error), median of seeds 5, min 5, max 5"),
    ],
)
def test_an_evaluation_whose_returns_are_all_equal(
    arguments: list[str], score: str, tmp_path: Path
) -> None:
    small = ("--num-updates", "1", "--num-envs", "4", "--hidden-sizes", "8")
    limit = ("--env-params", "max_steps_in_episode=5")
    done = run("train.py", *small, *limit, *arguments, "--out", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert score in done.stdout


def test_help_teaches_and_does_not_wait_for_jax() -> None:
    done, modules = run_with_imports("train.py", "--help")
    assert done.returncode == 0
    assert "jax" not in modules
    for flag in (
        "--estimator",
        "--gamma",
        "--seeds",
        "--env-params",
        "--gae-lambda",
        "--max-grad-norm",
    ):
        assert flag in done.stdout
    assert "sgd: the bare theorem" in " ".join(done.stdout.replace("│", " ").split())


def test_the_preset_of_an_estimator_is_its_default() -> None:
    assert "(default: windows)" in " ".join(
        run("train.py", "--estimator", "ppo", "--help").stdout.replace("│", " ").split()
    )


@pytest.mark.slow
def test_a_search_ranks_its_trials_and_prints_the_best() -> None:
    arguments = [
        "--trials",
        "2",
        "--seeds",
        "2",
        "--set",
        "num_updates=2",
        "num_envs=4",
        "hidden_sizes=(8,)",
    ]
    done = run("tune.py", *arguments, "--range", "learning_rate=0.001:0.1")
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0].startswith("2 trials × 2 seeds × ")
    scores = [float(line.split()[1]) for line in printed[2:4]]
    assert scores == sorted(scores, reverse=True)
    best = printed[2].split()[0]
    assert printed[-1].startswith("preset('reinforce', env='CartPole-v1', num_updates=2")
    assert float(printed[-1].rpartition("learning_rate=")[2].rstrip(")")) == pytest.approx(
        float(best), rel=0.01
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--range", "learning_rat=1:2"], "did you mean 'learning_rate'"),
        (["--range", "learning_rate=2:1"], "must be LOW:HIGH with 0 < LOW <= HIGH"),
        (["--set", "num_envs"], "is not NAME=VALUE"),
        (["--range", "learning_rate"], "must be LOW:HIGH with 0 < LOW <= HIGH, got ''"),
        (["--range", "learning_rate=a:b"], "must be LOW:HIGH with 0 < LOW <= HIGH, got 'a:b'"),
        (["--seeds", "1"], "seeds must be a whole number of at least 2, got 1"),
        (["--first-seed", "4294967295"], "--first-seed must be in [0, 2^32), with the seeds after"),
        (
            ["--set", "optimizer=storm", "--range", "temperature=0.01:0.1"],
            "optimizer='storm' needs a Ψ that does not depend on the policy",
        ),
        (["--range", "n_step=0.5:3"], "n_step must be a whole number"),
        (
            ["--set", "gamma=0.9", "--range", "gamma=0.8:1"],
            "gamma is both set and searched: leave it out of --set or --range",
        ),
    ],
)
def test_a_mistake_in_a_search(arguments: list[str], message: str) -> None:
    done = run("tune.py", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--over", "gamma"), "gamma is neither NAME=V,V,V nor NAME=LOW:HIGH"),
        (
            ("--over", "learning_rat=0.1"),
            "unknown setting to vary 'learning_rat': did you mean 'learning_rate'",
        ),
        (("--over", "gamma=2"), "gamma must be in [0, 1], got 2"),
        (
            ("--over", "gamma=0.1:1", "--method", "grid"),
            "gamma is a range, and a grid needs values",
        ),
        (("--seeds", "1"), "seeds must be a whole number of at least 2, got 1: intervals are over"),
        (("--over", "seed=0,1"), "seed is no setting to vary: every row has --seeds of them"),
        (
            ("--memory-limit", "much"),
            "--memory-limit must be a size such as 4GiB or 500MB, got 'much'",
        ),
        # it has to compile first
        pytest.param(("--memory-limit", "1MB"), "memory:", marks=pytest.mark.slow),
        (
            ("--coordinator", "localhost:1"),
            "coordinator, num_processes and process_id belong together",
        ),
        (("--distributed",), "no cluster was found"),
        (
            ("--shard", "envs", "--cpu-devices", "2", "--num-envs", "5"),
            "--num-envs must be a multiple of the 2 devices",
        ),
    ],
)
def test_a_mistake_in_a_sweep(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run("sweep.py", "--out", str(tmp_path), *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not list(tmp_path.rglob("*.parquet"))


def test_scripts_for_clusters_are_whole() -> None:
    """Their syntax, and that the command has the flags they use; the clusters themselves are not
    here.
    """
    helped = run("sweep.py", "--help").stdout
    scripts = sorted((ROOT / "experiments" / "cluster").iterdir())
    assert len(scripts) == 3
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
        (call,) = re.findall(
            r"experiments/sweep\.py "
            r"(?=--seeds|--distributed).*?(?=\"\$@\"|\$flags)",
            script.read_text(),
            re.S,
        )
        flags = re.findall(r"--[a-z-]+", call)
        assert flags
        assert all(flag in helped for flag in flags), flags


def page_table() -> dict[str, list[tuple[float, ...]]]:
    """The rows of the page on lag: value, ends of the interval and effective sample size."""
    page = (ROOT / "docs" / "howto" / "sequences.md").read_text(encoding="utf-8")
    lines = page.split("<!-- lag -->")[1].split("<!-- end of lag -->")[0].strip().splitlines()[2:]
    cells = {}
    for line in lines:
        name, *rest = line.strip("| ").split(" | ")
        cells[name] = [tuple(map(float, re.findall(r"\d\.\d+", cell))) for cell in rest]
    return cells


def test_a_row_of_the_table_on_lag_is_checked_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It printed a table without rows."""
    monkeypatch.setattr(sys, "argv", ["lag.py", "--only", "ppo", "vtrce"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "experiments" / "lag.py"), run_name="__main__")
    assert stopped.value.code == 2
    assert "unknown row 'vtrce': did you mean 'vtrace'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_page_says_what_a_lag_costs() -> None:
    """Three rows again, within their intervals; and the effective sample size of all falls."""
    page = page_table()
    again = ["group_leave_one_out, no ratio", "sequence:ratio=token+clip=symmetric"]
    again += ["sequence:ratio=sequence, mixture: balance"]
    done = run("lag.py", "--lags", "0", "4", "--only", *again, timeout=900)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.strip().splitlines()[2:]:
        name, *cells = line.strip("| ").split(" | ")
        for cell, place in zip(cells, (0, 2), strict=True):
            value, _, _, ess = (float(x) for x in re.findall(r"\d\.\d+", cell))
            _, low, high, shown = page[name][place]
            assert low <= value <= high
            assert ess == pytest.approx(shown, abs=0.03)
    for cells in page.values():
        sizes = [ess for *_, ess in cells]
        assert sizes == sorted(sizes, reverse=True)
    refused_without_jax("lag.py", "--lags", "-1")


@pytest.mark.slow
def test_the_page_says_how_far_directions_are_from_the_gradient() -> None:
    """Two rows again, within their intervals; and the page's sentences about all of them."""
    page = (ROOT / "docs" / "science" / "steps.md").read_text(encoding="utf-8")
    table = page.split("<!-- update variance -->")[1].split("<!-- end of update variance -->")[0]
    lines = [line.strip("| ").split(" | ") for line in table.strip().splitlines()]
    stored = {
        name: [[float(x) for x in re.findall(r"-?\d+\.?\d*", cell)] for cell in cells]
        for name, *cells in lines[2:]
    }
    small = {name: of_rates[0] for name, of_rates in stored.items()}
    for name in ("igt", "storm"):
        assert small["sgd"][0] / small[name][0] == pytest.approx(9.0, abs=1.0)
        assert stored[name][1][0] < stored["averaged"][1][0]
    assert max(stored, key=lambda name: stored[name][2][0]) == "svrpg"
    for name in ("svrpg", "page_pg"):
        assert small[name][2] > small["sgd"][1]
    assert small["harpg"][1] < 2 * small["storm"][0] < small["harpg"][2]
    assert max(stored, key=lambda name: stored[name][2][3]) == "sgd"
    done = run("update_variance.py", "--only", "igt", "storm", timeout=900)
    assert done.returncode == 0, done.stderr
    header, _, *rows = done.stdout.strip().splitlines()
    assert header in table
    for row in rows:
        name, *cells = row.strip("| ").split(" | ")
        for cell, (_, low, high, _) in zip(cells, stored[name], strict=True):
            assert low <= float(cell.split()[0]) <= high
    refused_without_jax("update_variance.py", "--only", "storms")


@pytest.mark.slow
def test_the_page_says_what_dependent_noise_saves() -> None:
    """One row again, within its intervals."""
    page = (ROOT / "docs" / "science" / "sampling.md").read_text(encoding="utf-8")
    table = page.split("<!-- sampling -->")[1].split("<!-- end of sampling -->")[0]
    again = ("--problems", "regulator", "--estimators", "reward_to_go")
    done = run("sampling_table.py", *again, timeout=900)
    assert done.returncode == 0, done.stderr
    header, _, row = done.stdout.strip().splitlines()
    assert header in table
    shown = next(line for line in table.splitlines() if line.startswith(row.split(" | ")[0]))
    for found, stored in zip(row.split(" | ")[1:], shown.split(" | ")[1:], strict=True):
        value = float(found.split()[0])
        low, high = (float(x) for x in re.findall(r"\d+\.\d+", stored)[1:])
        assert low <= value <= high
    refused_without_jax("sampling_table.py", "--num-episodes", "3")


@pytest.mark.slow
def test_the_page_says_what_choosing_while_training_brings() -> None:
    """The baselines of a table again, within their intervals."""
    page = (ROOT / "docs" / "science" / "estimators.md").read_text(encoding="utf-8")
    again = ("--problems", "gridworld", "--choices", "baseline")
    done = run("selected_estimators.py", *again, timeout=900)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.strip().splitlines()[2:]:
        name, *cells = line.strip("| ").split(" | ")[1:4]
        shown = next(
            x for x in page.splitlines() if x.startswith(f"| gridworld, baseline | {name} |")
        )
        for found, stored in zip(cells, shown.strip("| ").split(" | ")[2:4], strict=True):
            low, high = (float(x) for x in re.findall(r"\d+\.?\d*", stored)[1:])
            assert low <= float(found.split()[0]) <= high
    refused_without_jax("selected_estimators.py", "--seeds", "1")
