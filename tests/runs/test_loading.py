"""Runs by their paths: one tidy table of all kinds of folders, and paths without runs."""

from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from stored import STEPS, UPDATES, store_run, store_sweep

import pg
from pg.config import Config
from pg.runs import folders, loading

BEFORE = Path(__file__).parents[1] / "data" / "run-before-renaming"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two runs, a benchmark's cell and a sweep below one folder."""
    store_run(tmp_path / "CartPole-v1" / "reinforce" / "a", [1.0, 2.0])
    store_run(tmp_path / "CartPole-v1" / "ppo" / "b", [3.0], estimator="ppo", collect="windows")
    store_run(tmp_path / "bench" / "Catch-bsuite" / "ppo" / "seeds-0-1", [1.0, 0.5])
    table = {"learning_rate": [0.001, 0.01], "length": [0.5, 1.0]}
    store_sweep(tmp_path / "sweep-1", table, np.array([[1.0, 2.0], [3.0, 4.0]]))
    return tmp_path


def test_one_row_per_run_seed_and_update(out: Path) -> None:
    table = pg.load(out)
    frame = table.to_pandas()
    assert len(frame) == (2 + 1 + 2 + 4) * UPDATES
    assert table.column_names[:5] == ["run", "configuration", "seed", "update", "total_env_steps"]
    assert not frame.duplicated(["run", "configuration", "seed", "update"]).any()
    run = out / "CartPole-v1" / "reinforce" / "a"
    here = frame[frame["run"] == str(run)]
    stored = pg.load_results(run)
    for name, values in stored.metrics.items():
        np.testing.assert_array_equal(here[name], values.ravel())
    assert here["update"].tolist() == [*range(UPDATES)] * 2
    assert here["seed"].tolist() == [0] * UPDATES + [1] * UPDATES


def test_settings_are_columns_with_types(out: Path) -> None:
    table = pg.load([out, BEFORE])
    kinds = {name: str(table.schema.field(name).type) for name in table.column_names}
    assert {kinds[name] for name in ("estimator", "hidden_sizes", "rnn", "run")} == {"string"}
    assert {kinds[name] for name in ("num_envs", "n_step", "configuration")} == {"int64"}
    assert {kinds[name] for name in ("learning_rate", "stop_kl", "env_params.length")} == {"double"}
    assert kinds["normalise_observations"] == "bool"
    fields = [name for name in Config.__dataclass_fields__ if name not in ("env_params", "preset")]
    assert set(fields) < set(kinds)
    frame = table.to_pandas()
    of_sweep = frame[frame["configuration"] == 1]
    assert set(of_sweep["learning_rate"]) == {0.01}
    assert set(of_sweep["env_params.length"]) == {1.0}
    before = frame[frame["run"] == str(BEFORE)]
    assert set(before["rnn"]) == {"gru"}  # which was `memory`
    assert set(before["stop_kl"]) == {np.inf}
    assert before["kl"].notna().all()  # a metric that the other runs have not
    assert frame.loc[frame["run"] != str(BEFORE), "kl"].isna().all()


def test_pandas_and_polars_have_the_same_table(out: Path) -> None:
    table = pg.load(out, columns=["estimator", "return"])
    assert table.column_names[-2:] == ["estimator", "return"]
    by_pandas = table.to_pandas().groupby("estimator")["return"].mean()
    frame = pl.DataFrame(pl.from_arrow(table))
    for estimator, mean in frame.group_by("estimator").agg(pl.col("return").mean()).iter_rows():
        assert mean == pytest.approx(by_pandas[estimator])
    assert isinstance(table.to_pandas(), pd.DataFrame)


def test_a_sweep_is_each_of_its_configurations(out: Path) -> None:
    first, second = loading.find(out / "sweep-1").runs
    assert (first.configuration, first.seeds) == (0, [0, 1])
    assert second.settings["learning_rate"] == 0.01
    assert second.settings["env_params.length"] == 1.0
    np.testing.assert_array_equal(second.scores["sampled"], [3.0, 4.0])
    np.testing.assert_allclose(second.metrics["return"][:, -1], [3.0, 4.0])


def test_final_scores_are_one_row_per_run_and_seed(out: Path) -> None:
    table = pg.load(out, per="seed")
    frame = table.to_pandas()
    assert table.column_names[:4] == ["run", "configuration", "seed", "total_env_steps"]
    assert table.column_names[-3:] == ["sampled", "greedy", "diverged"]
    assert len(frame) == 2 + 1 + 2 + 4
    assert set(frame["total_env_steps"]) == {UPDATES * STEPS}
    of_sweep = frame[frame["configuration"].notna()]
    columns = ["configuration", "seed", "learning_rate", "env_params.length", "sampled"]
    assert of_sweep[columns].to_numpy().tolist() == [
        [0, 0, 0.001, 0.5, 1.0],
        [0, 1, 0.001, 0.5, 2.0],
        [1, 0, 0.01, 1.0, 3.0],
        [1, 1, 0.01, 1.0, 4.0],
    ]
    assert table["greedy"].null_count == len(frame)  # none was evaluated so
    few = pg.load(out / "sweep-1", columns=["learning_rate", "sampled"], per="seed")
    labels = ["run", "configuration", "seed", "total_env_steps"]
    assert few.column_names == [*labels, "learning_rate", "sampled"]


def test_final_scores_tell_what_diverged_from_what_was_not_evaluated(tmp_path: Path) -> None:
    store_run(tmp_path / "a", [1.0, np.nan], greedy=[2.0, np.nan])
    store_run(tmp_path / "b", [3.0], status="interrupted")
    store_sweep(tmp_path / "c", {"gamma": [0.9]}, np.array([[5.0, np.nan]]))
    table = pg.load(tmp_path, per="seed")
    assert table["diverged"].to_pylist() == [False, True, False, False, True]
    assert [x is None for x in table["sampled"].to_pylist()] == [False, False, True, False, False]
    np.testing.assert_array_equal(table["greedy"].to_pylist()[:2], [2.0, np.nan])
    with pytest.raises(ValueError, match="per must be 'update' or 'seed', got 'run'"):
        pg.load(tmp_path, per="run")  # type: ignore[arg-type]


def test_the_fresh_seeds_of_a_sweep_are_a_path_of_their_own(out: Path) -> None:
    sweep = out / "sweep-1"
    best = store_run(sweep / "best", [3.5], first_seed=2)
    assert pg.load(sweep, per="seed").num_rows == 4
    both = pg.load([sweep, best], per="seed")
    assert both["configuration"].to_pylist() == [0, 0, 1, 1, None]
    assert pg.load_results(sweep).seeds == [2]


def test_a_configuration_that_is_not_finished_is_left_out(out: Path) -> None:
    """A chunk that was cut off has metrics and no scores."""
    sweep = out / "sweep-1"
    (chunk,) = (sweep / "runs").iterdir()
    chunk.unlink()
    assert loading.find(sweep).runs == []


def test_paths_are_folders_globs_and_folders_above(out: Path) -> None:
    def folders(*paths: str | Path) -> list[str]:
        return [str(runs.folder.relative_to(out)) for runs in loading.find(paths).runs]

    a, b = "CartPole-v1/reinforce/a", "CartPole-v1/ppo/b"
    assert folders(out / a, out / "CartPole-v1", out / a) == [a, b]  # each once
    assert folders(f"{out}/*/*/[ab]") == [b, a]
    assert folders(f"{out}/**/seeds-*") == ["bench/Catch-bsuite/ppo/seeds-0-1"]
    other = out / "model"
    other.mkdir()
    (other / "config.json").write_text("{}")  # of another program
    assert len(folders(out)) == 5


def test_a_run_without_metrics_is_passed_over_where_there_are_others(out: Path) -> None:
    begun = store_run(out / "begun", [1.0])
    (begun / "metrics.parquet").unlink()
    assert loading.find(out).empty == [begun]
    assert str(begun) not in set(pg.load(out).to_pandas()["run"])
    with pytest.raises(ValueError, match=f"there are no metrics in {begun} yet"):
        pg.load(begun)


def test_a_sweep_without_a_finished_configuration_is_one_sentence(out: Path) -> None:
    sweep = out / "sweep-1"
    for path in sweep.glob("runs/*.parquet"):
        path.unlink()
    assert loading.find(out).empty == [sweep]
    said = f"^no configuration of the sweep {sweep} has finished all its seeds yet$"
    with pytest.raises(ValueError, match=said):
        pg.load(sweep)


def test_several_paths_need_no_list(out: Path) -> None:
    paths = [out / "CartPole-v1", out / "sweep-1"]
    assert pg.load(*paths).equals(pg.load(paths))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "nowhere",
            "there is no folder nowhere: give the one that pg train or pg sweep has printed",
        ),
        ("nothing/*", "nothing matches nothing/\\*"),
        ("doc*", "no folder of a run or a sweep matches doc\\*"),
        ("README.md", "README.md is not a folder of a run"),
        ("docs", "docs is not a folder of a run"),
        ([], "no path was given"),
    ],
)
def test_what_leads_to_no_run_is_one_sentence(
    path: str | list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(ValueError, match=f"^{said}"):
        pg.load(path)


def test_a_column_that_there_is_not_is_answered_with_the_nearest(out: Path) -> None:
    with pytest.raises(ValueError, match="unknown column 'retrun': did you mean 'return'"):
        pg.load(out, columns=["retrun"])


def test_a_damaged_summary_is_one_sentence(out: Path) -> None:
    run = out / "CartPole-v1" / "reinforce" / "a"
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"seed": 1', '"seed": 7'))
    with pytest.raises(ValueError, match=r"summary.json is corrupt: it is of other seeds"):
        pg.load(run)


def test_runs_of_other_code_have_other_settings(out: Path) -> None:
    """A custom part keeps its name when its file is edited."""
    run = out / "CartPole-v1" / "reinforce" / "a"
    stored = folders.read_stored(run)
    found = []
    for digest in ("a" * 64, "b" * 64):
        parts = {"estimator": {"name": "mine", "file": "mine.py", "sha256": digest}}
        found.append(loading.flat_settings({**stored, "parts": parts})["estimator_code"])
    assert found == ["a" * 12, "b" * 12]


def test_a_run_that_may_end_at_a_return_has_other_settings(out: Path) -> None:
    stored = folders.read_stored(out / "CartPole-v1" / "reinforce" / "a")
    options = {**stored["options"], "stop_at_return": 400.0}
    fixed = loading.flat_settings(stored)
    stopping = loading.flat_settings({**stored, "options": options})
    assert stopping == {**fixed, "stop_at_return": 400.0}


def test_a_setting_of_mixed_kinds_is_a_column_of_texts(out: Path) -> None:
    path = out / "CartPole-v1" / "reinforce" / "a" / "config.json"
    data = folders.read_json(path)
    data["config"]["env_params"] = {"length": "long"}
    folders.write_json(path, data)
    table = pg.load(out)
    assert str(table.schema.field("env_params.length").type) == "string"
    values = set(table["env_params.length"].to_pylist())
    assert "long" in values
    assert values <= {"long", "0.5", "1.0", None}
