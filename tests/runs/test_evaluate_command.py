"""`pg evaluate` and `pg resume` on the folder of a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pg.commands import cli, evaluate, job, resume, train
from pg.config import Config
from pg.runs import folders, results

EPISODES = 5


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands set these, for their own process."""
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds."""
    config = Config(num_updates=2, num_envs=4, hidden_sizes=(8,), normalise_observations=True)
    out = tmp_path_factory.mktemp("results")
    options = job.Options(seed=3, seeds=2, eval_episodes=EPISODES, out=out, name="mine")
    assert job.run(config, config.hyperparams(), options) == 0
    return out / "CartPole-v1" / "reinforce" / "mine"


def summary(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_as_the_final_evaluation_was_made_the_numbers_are_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final, before = summary(folder / "summary.json"), (folder / "summary.json").read_bytes()
    assert evaluate.main([str(folder), "--episodes", str(EPISODES)]) == 0
    *printed, last = capsys.readouterr().out.splitlines()
    path = folder / "evaluations" / f"sampled-{EPISODES}-seed3.json"
    assert last == str(path)
    assert f"evaluation, {2 * EPISODES} episodes, sampled actions: " in " ".join(printed)
    again = summary(path)
    assert again == final | {"eval_seed": 3}
    assert (folder / "summary.json").read_bytes() == before


def test_more_episodes_another_seed_and_greedy_actions_are_another_result(folder: Path) -> None:
    """Each in a file of its own; the summary follows where it is asked to."""
    final = summary(folder / "summary.json")
    assert evaluate.main([str(folder), "--episodes", "7", "--seed", "100", "--greedy"]) == 0
    path = folder / "evaluations" / "greedy-7-seed100.json"
    other = summary(path)
    assert (other["actions"], other["episodes"], other["eval_seed"]) == ("greedy", 14, 100)
    assert [row["seed"] for row in other["per_seed"]] == [3, 4]
    assert not np.isclose(other["mean"], final["mean"])
    times = {name: x for name, x in final.items() if name.endswith("_seconds")}
    assert len(times) == 5
    assert times.items() <= other.items()
    flags = ["--episodes", "7", "--seed", "100", "--greedy", "--update-summary"]
    out = folder / "mine.json"
    try:
        assert evaluate.main([str(folder), *flags, "--out", str(out)]) == 0
        assert summary(out) == summary(folder / "summary.json") == other
        assert results.load_results(folder).summary["actions"] == "greedy"
    finally:
        folders.write_json(folder / "summary.json", final)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--episodes", "0"], "episodes must be a whole number of at least 1, got 0"),
        (["--seed", "-1"], "seed must be in [0, 2^32), got -1"),
        (["--seed", "4294967295"], "seed must be in [0, 2^32), with the seeds after it"),
        (["--out", "no/such/folder/file.json"], "out must be a file in an existing folder"),
    ],
)
def test_a_mistake_is_a_sentence(
    flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(folder), *flags])
    assert stopped.value.code == cli.MISTAKE
    assert message in capsys.readouterr().err


def test_a_run_that_has_not_ended_has_no_summary_to_update(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    with pytest.raises(SystemExit) as stopped:
        evaluate.main([str(tmp_path / "run"), "--update-summary", "--episodes", "2"])
    assert stopped.value.code == cli.MISTAKE
    assert "has no summary.json to update, as its run has not ended" in " ".join(
        capsys.readouterr().err.split()
    )
    assert not (tmp_path / "run" / "summary.json").exists()
    assert evaluate.main([str(tmp_path / "run"), "--episodes", "2"]) == 0


def test_a_run_that_has_stopped_is_not_trained_on_by_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At an infinite number in its first update; with skip it goes on."""
    flags = ["--num-updates", "40", "--num-envs", "4", "--hidden-sizes", "4", "--optimizer", "sgd"]
    wild = ["--learning-rate", "1e38", "--max-grad-norm", "inf", "--name", "run"]
    assert train.main([*flags, *wild, "--out", str(tmp_path)]) == cli.NOT_FINITE
    (run,) = tmp_path.glob("*/*/run")
    before = summary(run / "summary.json")
    assert before["status"] == "stopped"
    assert resume.main([str(run)]) == cli.NOT_FINITE
    after = summary(run / "summary.json")
    for name in ("status", "num_updates", "env_steps"):
        assert after[name] == before[name]
    assert resume.main([str(run), "--on-nonfinite", "skip"]) == cli.NOT_FINITE
    assert summary(run / "summary.json")["num_updates"] == 40


def test_a_folder_of_no_run_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path)])
    assert "is not a folder of a run" in capsys.readouterr().err


def test_a_run_is_resumed_by_its_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert resume.main([str(folder)]) == 0
    assert "it has all of its 2 updates" in capsys.readouterr().out
    for words in ([], ["--num-updates", "3", str(folder)]):
        with pytest.raises(SystemExit) as stopped:
            resume.main(words)
        assert stopped.value.code == cli.MISTAKE
        assert "the folder of the run comes first" in " ".join(capsys.readouterr().err.split())
    assert resume.main([str(folder), "--greedy"]) == 0
    assert "; pg evaluate makes another evaluation" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit) as stopped:
        resume.main([str(folder), "--out", "elsewhere"])
    assert stopped.value.code == cli.MISTAKE
    assert "--out and --resume are mutually exclusive" in " ".join(capsys.readouterr().err.split())
    assert resume.main([str(folder), "--num-updates", "3"]) == 0
    assert summary(folder / "summary.json")["num_updates"] == 3


def test_the_summary_of_another_command_stays(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The scores of a sweep's best configuration are those that the sweep has ranked."""
    best = tmp_path / "best"
    shutil.copytree(folder, best)
    setup = json.loads((best / "config.json").read_text())
    folders.write_json(
        best / "config.json", setup | {"options": setup["options"] | {"command": "sweep.py"}}
    )
    with pytest.raises(SystemExit):
        evaluate.main([str(tmp_path), "--update-summary"])
    assert "--update-summary is for runs of pg train" in capsys.readouterr().err
    assert evaluate.main([str(tmp_path), "--episodes", "2"]) == 0
    assert (best / "evaluations" / "sampled-2-seed3.json").exists()
