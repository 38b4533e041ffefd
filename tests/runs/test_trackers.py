"""Trackers: what they receive; a failing one ends itself and not the run; no update comes twice;
and, where their packages are installed, what TensorBoard, W&B, MLflow and Aim store.
"""

import errno
import importlib.util
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scripts

import pg
from pg.commands import cli, job
from pg.trackers import base

CONFIG = pg.Config(num_updates=3, num_envs=4, hidden_sizes=(8,), horizon=30, preset=None)


class Recorder:
    """Stores what it receives; fails where requested."""

    def __init__(self, name: str, fails_in: str = "", error: Exception | None = None) -> None:
        self.name, self.fails_in, self.error = name, fails_in, error or ValueError("broken\nby it")
        self.calls: list[tuple[str, Any]] = []

    def _called(self, method: str, *given: Any) -> None:
        self.calls.append((method, given))
        if method == self.fails_in:
            raise self.error

    def start(self, run: base.RunInfo) -> str | None:
        self._called("start", run)
        return f"id of {self.name}"

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        self._called("log", updates, metrics)

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        self._called("finish", summary, pictures)

    def given(self, method: str) -> list[Any]:
        return [given for name, given in self.calls if name == method]


def options(out: Path, **more: Any) -> job.Options:
    return job.Options(
        **{"seeds": 2, "eval_episodes": 2, "out": out, "name": "x", "eval_every": 2, **more}
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recorder, Path]:
    """A run with one tracker that stores everything, and three that fail."""
    out, good = tmp_path_factory.mktemp("results"), Recorder("good")
    bad = [Recorder(f"bad in {name}", name) for name in ("start", "finish")]
    full = Recorder("full", "log", OSError(errno.ENOSPC, "No space left on device"))
    followers = [bad[0], full, good, bad[1]]
    assert job.run(CONFIG, CONFIG.hyperparams(), options(out), trackers=followers) == 0
    assert [len(x.calls) for x in (*bad, full)] == [1, 2 + len(good.given("log")), 2]
    return good, out / "CartPole-v1" / "reinforce" / "x"


def test_a_tracker_is_given_the_run_its_metrics_and_its_results(
    recorded: tuple[Recorder, Path],
) -> None:
    tracker, folder = recorded
    ((info,),) = tracker.given("start")
    assert (info.folder, info.seeds, info.id, info.updates) == (folder, [0, 1], None, 0)
    assert (info.name, info.group, info.out) == ("x", "CartPole-v1/reinforce", folder.parents[2])
    assert info.settings["config"]["num_envs"] == 4
    logged = tracker.given("log")
    assert [updates for updates, _ in logged] == [1, 2, 3]
    rows = pg.load_results(folder).metrics
    for updates, metrics in logged:
        for name in ("return", "eval_return", "grad_norm"):
            assert np.allclose(metrics[name], rows[name][:, updates - 1], equal_nan=True)
        assert type(metrics["return"]) is np.ndarray
        assert (metrics["total_env_steps"] == rows["env_steps"][:, :updates].sum(1)).all()
    ((summary, pictures),) = tracker.given("finish")
    assert summary == json.loads((folder / "summary.json").read_text())
    assert folder / "curve.png" in pictures


def test_a_run_with_trackers_has_the_bits_of_one_without(
    recorded: tuple[Recorder, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = recorded[1]
    assert job.run(CONFIG, CONFIG.hyperparams(), options(tmp_path)) == 0
    bare = tmp_path / "CartPole-v1" / "reinforce" / "x"
    for name in ("params.safetensors", "metrics.parquet"):
        assert (bare / name).read_bytes() == (folder / name).read_bytes()
    assert not (bare / "trackers.json").exists()
    assert "warning" not in capsys.readouterr().out


def test_a_run_that_is_resumed_goes_on_in_the_same_run_of_the_tracker(
    recorded: tuple[Recorder, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """And every failure is one line."""
    again, failing = Recorder("good"), Recorder("failing", "log")
    assert job.resume(recorded[1], num_updates=5, trackers=[again, failing]) == 0
    ((info,),) = again.given("start")
    assert (info.id, info.updates) == ("id of good", 3)
    assert [updates for updates, _ in again.given("log")] == [4, 5]
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert lines == ["warning: the run continues without the tracker failing (ValueError: broken)"]
    stored = json.loads((recorded[1] / "trackers.json").read_text())
    assert stored["good"] == {"id": "id of good", "updates": 5}
    late = Recorder("late")  # for a run that has all of its updates
    assert job.resume(recorded[1], trackers=[late]) == 0
    assert late.calls == []


def test_a_tracker_that_ends_the_program_ends_itself_alone() -> None:
    class Leaving(Recorder):
        def start(self, run: Any) -> None:
            raise SystemExit("no licence")

    said: list[str] = []
    trackers = base.Trackers([Leaving("leaving")], said.append)
    trackers.start(Path("run"), [0], {}, 0)
    assert not trackers.live
    assert said[0].endswith("without the tracker leaving (SystemExit: no licence)")


def test_two_trackers_of_one_name_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"two trackers have the name 'same': give each its own name"
    ):
        base.check_own([Recorder("same"), Recorder("same")])


def rows(start: int, count: int) -> dict[str, np.ndarray]:
    """Metrics of one seed whose values are the numbers of the updates."""
    updates = np.arange(start, start + count, dtype=np.float32)[None]
    ones = np.ones_like(updates)
    return {"return": updates, "episodes": ones, "env_steps": ones.astype(np.int32)}


def test_no_update_comes_twice_after_a_kill(tmp_path: Path) -> None:
    """The last checkpoint was before what the tracker has been given; the chunk that holds both is
    given in part.
    """
    tracker = Recorder("it")
    first = base.Trackers([tracker], print)
    first.start(tmp_path, [0], {}, 0)
    first.log(4, rows(0, 4))
    first.log(6, rows(4, 2))  # killed here; the checkpoint is of update 4
    second = base.Trackers([tracker], print)
    second.start(tmp_path, [0], {}, np.array([4]))
    second.log(5, rows(4, 1))
    second.log(8, rows(5, 3))
    given = [
        (updates, x["return"][0], x["total_env_steps"][0]) for updates, x in tracker.given("log")
    ]
    assert given == [(4, 1.5, 4), (6, 4.5, 6), (8, 6.5, 8)]


def test_a_disk_that_is_full_ends_the_trackers_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, said = Recorder("it"), list[str]()
    followers = base.Trackers([tracker], said.append)
    followers.start(tmp_path, [0], {}, 0)

    def full(path: Path, data: Any, *, sync: bool) -> None:
        raise OSError(errno.ENOSPC, f"cannot write {path}: No space left on device")

    monkeypatch.setattr(base.folders, "write_json", full)
    for done in (1, 2):
        followers.log(done, rows(done - 1, 1))
    assert len(said) == 1
    assert "the run continues without trackers" in said[0]
    assert not tracker.given("log")


def test_means_are_over_episodes_and_of_what_is_there() -> None:
    tracker = Recorder("it")
    followers = base.Trackers([tracker], print)
    followers.stored = {"it": {"id": None, "updates": 0}}
    nan = np.nan
    followers.log(
        3,
        {
            "return": np.array([[10.0, nan, 40.0], [nan, nan, nan]]),
            "episodes": np.array([[1, 0, 2], [0, 0, 0]]),
            "env_steps": np.ones((2, 3), np.int32),
            "entropy": np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 3.0]]),
            "nonfinite": np.array([[0, 4, 0], [0, 0, 0]]),
        },
    )
    ((_, means),) = tracker.given("log")
    assert means["return"].tolist()[0] == 30.0
    assert np.isnan(means["return"][1])
    assert (means["entropy"].tolist(), means["nonfinite"].tolist()) == ([2.0, 1.0], [4, 0])
    curves = base.named([7, 8], means)
    assert (curves["seed-7/return"], curves["mean/entropy"]) == (30.0, 1.5)
    assert not {"seed-8/return", "mean/return"} & set(curves)


def test_a_tracker_that_is_none_or_not_installed_is_a_sentence_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ValueError, match="unknown tracker 'tensorbord': did you mean 'tensorboard'"
    ):
        job.Options(log=("tensorbord",))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for given, message in (
        ({"options": options(tmp_path, log=("wandb",))}, r"'policy-gradients-jax[wandb]'"),
        ({"trackers": [Recorder]}, "a tracker must be an object with start, log and finish"),
    ):
        assert job.run(CONFIG, CONFIG.hyperparams(), **given) == cli.MISTAKE
        assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_flags_of_other_command_lines_are_answered() -> None:
    done = scripts.refused_without_jax("train.py", "--wandb")
    assert "--log wandb" in " ".join(done.stderr.split())


INSTALLED = [name for name, package in base.TRACKERS.items() if importlib.util.find_spec(package)]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that all installed trackers follow, and that is resumed."""
    out = tmp_path_factory.mktemp("tracked")
    flags = ["--num-envs=4", "--hidden-sizes=8", "--horizon=30", "--seeds=2", "--eval-episodes=2"]
    folder = out / "CartPole-v1" / "reinforce" / "x"
    for more in (
        ["--num-updates=3", *flags, f"--out={out}", "--name=x", "--log", *INSTALLED],
        [f"--resume={folder}", "--num-updates=5"],
    ):
        done = scripts.run("train.py", *more, WANDB_MODE="offline", WANDB_SILENT="true")
        assert done.returncode == 0, done.stderr
        assert "warning" not in done.stdout
    return folder


def of_seed(folder: Path, name: str = "return", seed: int = 1) -> dict[int, float]:
    """A metric by update, as the run's own table has it."""
    values = pg.load_results(folder).metrics[name][seed]
    return {i + 1: pytest.approx(x) for i, x in enumerate(values.tolist())}


@pytest.mark.skipif("tensorboard" not in INSTALLED, reason="tensorboardX is not installed")
def test_tensorboard_keeps_every_curve(tracked: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event

    points: dict[str, dict[int, float]] = {}
    kinds = set()
    for path in sorted((tracked / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length
            for value in event.summary.value:
                kinds.add((value.tag, value.WhichOneof("value")))
                steps = points.setdefault(value.tag, {})
                assert value.tag.startswith("final/") or event.step not in steps
                steps[event.step] = value.simple_value
    assert points["seed-1/return"] == of_seed(tracked)
    assert {("curve", "image"), ("settings/text_summary", "tensor")} <= kinds
    assert points["final/mean"][5] == pytest.approx(pg.load_results(tracked).summary["mean"])


def leveldb_records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format, behind seven bytes of W&B's own."""
    at, record = 7, b""
    while at < len(data):
        left = 2**15 - at % 2**15  # of a block
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or its last part
            yield record
            record = b""


@pytest.mark.skipif("wandb" not in INSTALLED, reason="wandb is not installed")
@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_every_curve_offline(tracked: Path) -> None:
    """The run and its resumption have one id."""
    from wandb.proto.wandb_internal_pb2 import Record

    found, ids, final = {}, set(), {}
    for path in sorted((tracked / "wandb").glob("offline-run-*/*.wandb")):
        for data in leveldb_records(path.read_bytes()):
            record = Record.FromString(data)
            if record.run.run_id:
                ids.add(record.run.run_id)
            row = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "seed-1/return" in row:
                step = int(row["_step"])
                assert step not in found
                found[step] = float(row["seed-1/return"])
            final |= {"/".join(i.nested_key) or i.key: i.value_json for i in record.summary.update}
    assert found == of_seed(tracked)
    assert len(ids) == 1
    summary = pg.load_results(tracked).summary
    assert json.loads(final["final/mean"]) == pytest.approx(summary["mean"])


@pytest.mark.skipif("mlflow" not in INSTALLED, reason="mlflow is not installed")
def test_mlflow_keeps_every_curve_in_files(tracked: Path) -> None:
    (run,) = (tracked.parents[2] / "mlruns").glob("*/*/artifacts")
    lines = (run.parent / "metrics" / "seed-1" / "return").read_text().splitlines()
    points = [line.split() for line in lines]
    assert len(points) == 5
    assert {int(step): float(value) for _, value, step, *_ in points} == of_seed(tracked)
    assert (run.parent / "params" / "num_envs").read_text() == "4"
    assert (run / "curve.png").stat().st_size > 0
    assert (run.parent / "metrics" / "final" / "mean").exists()


@pytest.mark.skipif("aim" not in INSTALLED, reason="aim is not installed")
@pytest.mark.filterwarnings("ignore")
def test_aim_keeps_every_curve(tracked: Path) -> None:
    import aim
    from aim.sdk.index_manager import RepoIndexManager
    from aim.storage.context import Context

    place = str(tracked.parents[2])
    (known,) = aim.Repo(place).list_all_runs()
    assert RepoIndexManager.get_index_manager(aim.Repo(place)).index(known)  # as `aim up` does
    (run,) = aim.Repo(place).iter_runs()
    metric = run.get_metric("return", Context({"of": "seed-1"}))
    steps, columns = metric.data.items_list()
    assert dict(zip(steps, columns[0], strict=True)) == of_seed(tracked)
    assert run["final"]["final/mean"] == pytest.approx(pg.load_results(tracked).summary["mean"])
