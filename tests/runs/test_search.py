"""Searches: rungs that continue from checkpoints, proposed batches, and complete files."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pg
from pg.commands import cli
from pg.commands import sweep as command
from pg.config import Config, Hyperparams
from pg.fast import devices
from pg.reports.statistics import Estimate
from pg.runs import checkpoints, loading, sweeps
from pg.sweep import Range, SweepSpec, driver, proposals, rungs, spaces
from pg.sweep import search as searches
from pg.sweep import spec as specs
from pg.sweep.report import Ranked
from pg.sweep.search import Budget, Halving, Round, Search, Tpe, run_search

# The learning rate is annealed to zero, over all updates.
CONFIG = Config(
    estimator="leave_one_out",
    num_envs=4,
    num_updates=6,
    hidden_sizes=(8,),
    schedule="linear",
    preset=None,
)
TABLE = {"learning_rate": [1e-9, 0.03, 1e-8, 0.01]}
ONE = devices.layout(most=1)
HOW = cli.Checkpointing()
WIDTH = 3  # of two seeds each: a chunk of the second rung has runs of several of the first
BUDGET = Budget(ONE, HOW, width=WIDTH, limit=None)


def halving(**changes: Any) -> Search:
    spec = SweepSpec(CONFIG, Hyperparams(), TABLE, range(2), episodes=5)
    return Search(spec, Halving(**{"eta": 2, "rungs": 2, **changes}))


def run(search: Search, folder: Path, fresh: int = 0) -> int:
    return run_search(search, folder, BUDGET, fresh=fresh)


def table_bytes(folder: Path) -> dict[str, bytes]:
    """The tables of a search, byte by byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.parquet")}


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = halving().folder(tmp_path_factory.mktemp("halving"))
    assert run(halving(), folder, fresh=2) == 0
    return folder


def test_a_rung_is_what_a_run_of_that_length_gives(halved: Path, tmp_path: Path) -> None:
    """Bit for bit, also with a schedule over all updates: the survivors are trained again, in one
    go, and those of the first rung have their first updates.
    """
    chosen = sweeps.read_runs(halved / "rung-1")["learning_rate"]
    whole = dataclasses.replace(
        halving().sweep, table={"learning_rate": list(dict.fromkeys(chosen.tolist()))}
    )
    assert whole.num_configurations == 2
    driver.run(whole, tmp_path, ONE, HOW, width=WIDTH)
    for kind in ("runs", "metrics"):
        there, here = halved / "rung-1" / kind, tmp_path / kind
        assert sorted(p.name for p in there.iterdir()) == sorted(p.name for p in here.iterdir())
        for path in there.iterdir():
            assert path.read_bytes() == (here / path.name).read_bytes()
    first = sweeps.read_metrics(halved / "rung-0")
    for g, metrics in sweeps.read_metrics(tmp_path).items():
        number = TABLE["learning_rate"].index(whole.table["learning_rate"][g])
        for name, values in metrics.items():
            assert first[number][name].shape == (2, 3)
            np.testing.assert_array_equal(first[number][name], values[:, :3])


def test_the_best_of_a_rung_go_on(halved: Path) -> None:
    rows = sweeps.read_runs(halved / "rung-0")
    means = rows["mean"].reshape(4, 2).mean(axis=1)
    best = sorted(np.argsort(-means, kind="stable")[:2].tolist())
    second = sweeps.read_runs(halved / "rung-1")
    expected = np.repeat([TABLE["learning_rate"][g] for g in best], 2)
    np.testing.assert_array_equal(second["learning_rate"], expected)
    lines = (halved / "configurations.csv").read_text().splitlines()
    assert lines[0].startswith("rank,configuration,learning_rate,rung,updates,mean")
    reached = [line.split(",")[1:5:2] for line in lines[1:]]
    assert [rung for _, rung in reached] == ["1", "1", "0", "0"]
    assert sorted(int(g) for g, _ in reached[:2]) == best
    summary = json.loads((halved / "summary.json").read_text())
    assert (summary["method"], summary["updates"]) == ("halving", 4 * 3 + 2 * 3)
    assert summary["share_of_updates"] == 18 / 24


def test_the_winner_is_tried_again_in_full_on_fresh_seeds(halved: Path) -> None:
    found = pg.load_results(halved)
    assert found.seeds == [2, 3]
    assert found.metrics["return"].shape == (2, CONFIG.num_updates)
    assert not list(halved.rglob("*.safetensors")) or {
        path.parent.name for path in halved.rglob("*.safetensors")
    } == {"best"}
    assert (halved / "curves.png").stat().st_size > 100
    assert (halved / "sensitivity.png").stat().st_size > 100


def test_a_search_is_found_again_by_its_content(halved: Path) -> None:
    out = halved.parents[2]
    assert halving().folder(out) == halved
    assert halving(eta=3).folder(out) != halved
    assert halving().sweep.folder(out) != halved
    places = [runs.folder.name for runs in loading.find(halved).runs]
    assert places == ["rung-0"] * 4 + ["rung-1"] * 2
    moved = halved.rename(halved.with_name("search-12345678"))
    try:
        assert halving().folder(out) == moved
    finally:
        moved.rename(halved)


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(1, marks=pytest.mark.slow),
        3,
        pytest.param(4, marks=pytest.mark.slow),
    ],
)
def test_a_search_that_was_killed_comes_to_the_same(
    halved: Path, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second chunk of the first rung, and after each of the second rung."""
    written = []

    def interrupted(*args: Any) -> None:
        original(*args)
        written.append(args)
        if len(written) == chunk + 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        original = specs.write_chunk
        patch.setattr(specs, "write_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(halving(), tmp_path)
    run(halving(), tmp_path)
    expected = table_bytes(halved)
    assert table_bytes(tmp_path) == {k: x for k, x in expected.items() if "best" not in k}


def test_an_unfinished_chunk_of_another_width_is_not_carried_over(
    halved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a search leaves that is interrupted, and continued on fewer devices."""
    original = rungs.carried_over

    def after_another(
        earlier: Any, runs: Any, place: Any, like: Any, about: Any, columns: Any
    ) -> Any:
        chunks = earlier.folder / "checkpoints"
        done = rungs._restored(chunks / "chunk-000000-000002", earlier, like, about, 3)
        assert done is not None
        first_update = {name: x[:, :1] for name, x in done.partial.metrics.items()}
        own = {**about, "setup": earlier.spec.to_json()}
        write = checkpoints.CheckpointWriter(
            chunks / "chunk-000001-000003", own, {"seed": np.arange(3)}
        )
        write(1, lambda: done.partial.states, first_update, last=True)
        return original(earlier, runs, place, like, about, columns)

    monkeypatch.setattr(rungs, "carried_over", after_another)
    run(halving(), tmp_path)
    expected = table_bytes(halved)
    assert table_bytes(tmp_path) == {k: x for k, x in expected.items() if "best" not in k}


@pytest.mark.slow
def test_a_rung_without_the_checkpoints_before_it_starts_anew(
    halved: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    original = rungs.carried_over

    def damaged(earlier: Any, *args: Any) -> Any:
        for path in earlier.folder.rglob("*.safetensors"):
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return original(earlier, *args)

    monkeypatch.setattr(rungs, "carried_over", damaged)
    run(halving(), tmp_path)
    assert "runs that continue from it restart" in capsys.readouterr().out.replace("\n", " ")
    expected = table_bytes(halved)
    assert table_bytes(tmp_path) == {k: x for k, x in expected.items() if "best" not in k}


@pytest.mark.slow
def test_a_rung_that_goes_on_elsewhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = rungs.carried_over

    def moved(earlier: Any, runs: Any, place: Any, like: Any, about: Any, columns: Any) -> Any:
        about = {**about, "versions": {**about["versions"], "num_devices": 64}}
        return original(earlier, runs, place, like, about, columns)

    monkeypatch.setattr(rungs, "carried_over", moved)
    run(halving(), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    changed = "num_devices is 1 in the stored run and 64"
    assert f"bits may differ from an uninterrupted run, as {changed}" in said


def test_rungs_and_survivors() -> None:
    assert rungs.divisors(9, 81, 3, None) == [9, 3, 1]
    assert rungs.divisors(8, 81, 3, None) == [3, 1]
    assert rungs.divisors(100, 8, 3, None) == [3, 1]  # 3, 8 updates: no rung without one
    assert rungs.divisors(2, 81, 3, 4) == [27, 9, 3, 1]
    with pytest.raises(ValueError, match="rungs must be at most 2, as the first of them trains"):
        rungs.divisors(9, 8, 3, 3)
    assert rungs.survivors([5, 0, 3, 1], 7, 3) == [0, 5]
    assert rungs.survivors([5], 7, 3) == [5]
    assert rungs.survivors([2, 1], 2, 3) == [2]
    config = dataclasses.replace(CONFIG, num_updates=10)
    assert [rungs.Rung(d).updates(config) for d in (9, 3, 1)] == [2, 4, 10]


def ranked(g: int, mean: float, scores: int = 2, diverged: int = 0) -> Ranked:
    nan = float("nan")
    return Ranked(g, {}, np.full(scores, mean), Estimate(mean, nan, nan), diverged, 1.0)


def test_later_rungs_come_first_and_those_without_a_score_last() -> None:
    spec = halving().sweep
    lower, upper = [(0, 3)] * 4, [(3, 6)] * 2
    first = [ranked(3, 90.0), ranked(0, 9.0), ranked(2, 8.0), ranked(1, 7.0)]
    second = [ranked(0, 5.0), ranked(1, float("nan"), scores=0, diverged=2)]
    rounds = [
        Round(spec, Path(), [0, 1, 2, 3], first, lower),
        Round(dataclasses.replace(spec, table={}), Path(), [0, 3], second, upper),
    ]
    found = searches.standing(rounds, "rung")
    assert [(r.configuration, r.stage["rung"]) for r in found] == [(0, 1), (2, 0), (1, 0), (3, 1)]
    batches = [rounds[0], Round(spec, Path(), [4, 5], second, upper)]
    best = searches.standing(batches, "batch")[:3]
    assert [(r.configuration, r.stage["batch"]) for r in best] == [(3, 0), (0, 0), (2, 0)]


def test_corners_hold_every_value_and_both_ends() -> None:
    table = proposals.corners({"gamma": [0.9, 0.95, 1.0], "n_step": Range(1.0, 9.0)})
    assert table == {"gamma": [0.9, 0.95, 1.0], "n_step": [1, 9, 1]}


def test_mistakes_of_a_search_are_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first two before jax starts."""

    def started(self: Any) -> None:
        raise AssertionError("jax was started")

    def said(*argv: str) -> str:
        with pytest.raises(SystemExit) as caught:
            command.main([*argv, "--out", str(tmp_path)])
        assert caught.value.code == cli.MISTAKE
        return " ".join(capsys.readouterr().err.split())

    original = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(cli.Machine, "start", started)
        assert "eta must be a whole number of at least 2, got 1" in said("--eta", "1")
        patch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "optuna" else original(name)
        )
        sentence = "method='tpe' needs optuna, which is not installed: pip install -e '.[optuna]'"
        assert sentence in said("--method", "tpe")
    wrong = ("--method", "halving", "--num-updates", "4", "--rungs", "3")
    assert "rungs must be at most 2" in said(*wrong)
    assert not list(tmp_path.iterdir())


# Optuna


SPACES = {
    "learning_rate": Range(1e-4, 1e-1),
    "n_step": Range(1, 32),
    "baseline": [True, 0.5, "mean"],
}


def test_a_stored_value_that_json_writes_otherwise_is_found_again() -> None:
    clips = [1.0, math.inf]
    assert [searches._unlabelled("max_grad_norm", x, clips) for x in (1.0, "inf")] == clips
    sizes = [(8,), (64, 64)]
    assert searches._unlabelled("hidden_sizes", [64, 64], sizes) == (64, 64)


def test_whole_numbers_are_drawn_from_a_range_of_a_setting() -> None:
    drawn = spaces.draws("random", 20, {"num_envs": Range(8, 64), "n_step": Range(1, 9)}, 0)
    assert all(type(x) is int and 8 <= x <= 64 for x in drawn["num_envs"])
    assert all(type(x) is int and 1 <= x <= 9 for x in drawn["n_step"])


def test_proposals_follow_from_what_is_told() -> None:
    pytest.importorskip("optuna")
    start = proposals.propose(SPACES, {name: [] for name in SPACES}, [], 12, (0, 0))
    assert start == proposals.propose(SPACES, {name: [] for name in SPACES}, [], 12, (0, 0))
    assert all(1e-4 <= x <= 1e-1 for x in start["learning_rate"])
    assert all(isinstance(x, int) and 1 <= x <= 32 for x in start["n_step"])
    assert {type(x) for x in start["baseline"]} <= {bool, float, str}
    scores = [-abs(np.log(x / 1e-2)) for x in start["learning_rate"]]
    scores[3] = float("nan")
    again, other = (proposals.propose(SPACES, start, scores, 4, (0, k)) for k in (1, 2))
    assert again == proposals.propose(SPACES, start, scores, 4, (0, 1))
    assert again != other


def test_proposals_seek_what_scored_well_and_shun_what_diverged() -> None:
    """64 earlier scores: best near 10⁻², and all above 3 · 10⁻² diverged."""
    pytest.importorskip("optuna")
    space = {"learning_rate": Range(1e-4, 1e-1)}
    told = spaces.draws("sobol", 64, space, 0)
    rates = np.array(told["learning_rate"])
    scores = np.where(rates < 3e-2, -np.abs(np.log(rates / 1e-2)), np.nan)
    asked = proposals.propose(space, told, scores.tolist(), 32, (0, 1))["learning_rate"]
    assert np.mean(np.abs(np.log(np.array(asked) / 1e-2)) < np.log(3)) > 0.8


def test_a_search_by_optuna_goes_on_from_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    spec = SweepSpec(CONFIG, Hyperparams(), {}, range(2), episodes=5)
    rule = Tpe({"learning_rate": Range(1e-3, 1e-1)}, trials=5, batch=2)
    search = Search(spec, rule)
    whole, broken = search.folder(tmp_path / "whole"), search.folder(tmp_path / "broken")
    assert run(search, whole) == 0
    assert [r.folder.name for r in loading.find(whole).runs] == [
        *["batch-000"] * 2,
        *["batch-001"] * 2,
        "batch-002",
    ]
    lines = (whole / "configurations.csv").read_text().splitlines()
    assert sorted(line.split(",")[1] for line in lines[1:]) == list("01234")
    original, written = specs.write_chunk, []

    def interrupted(*args: Any) -> None:
        original(*args)
        written.append(args)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(specs, "write_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(search, broken)
    asked = []
    propose = proposals.propose
    monkeypatch.setattr(proposals, "propose", lambda *args: asked.append(args) or propose(*args))
    run(search, broken)
    assert len(asked) == 1  # of the last batch: the others are on file
    assert asked[0][2] == pytest.approx(
        [
            sweeps.read_runs(whole / f"batch-00{k}")["mean"].reshape(2, 2).mean(axis=1)[g]
            for k in range(2)
            for g in range(2)
        ]
    )
    assert table_bytes(whole) == table_bytes(broken)


@pytest.mark.slow
def test_halving_finds_as_good_a_learning_rate_as_the_full_grid(tmp_path: Path) -> None:
    """CartPole, nine learning rates on five seeds: the winner of either, on the same 20 fresh
    seeds, with a quarter of the updates.
    """
    config = dataclasses.replace(CONFIG, num_envs=8, num_updates=81, hidden_sizes=(64, 64))
    rates = np.geomspace(1e-5, 1.0, 9).tolist()
    spec = SweepSpec(config, Hyperparams(), {"learning_rate": rates}, range(5), episodes=20)
    budget = BUDGET._replace(width=5)
    halved, full = tmp_path / "halved", tmp_path / "full"
    run_search(Search(spec, Halving()), halved, budget, fresh=20)
    driver.run_sweep(spec, full, ONE, HOW, width=5, limit=None, fresh=20)
    ours, theirs = (json.loads((f / "summary.json").read_text()) for f in (halved, full))
    assert ours["share_of_updates"] < 0.27
    low, _ = theirs["interval_on_fresh_seeds"]
    assert ours["mean_on_fresh_seeds"] >= low
