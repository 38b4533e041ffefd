"""Files of a folder that is corrupt, hostile or somebody else's: read within bounds, written
nowhere else.

Any JSON, any bytes, and what is no plain file, in every file that is read; links in every place
that is written; the order in which what is written reaches the disk.
"""

import contextlib
import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow
import pyarrow.parquet as parquet
import pytest
from compilations import compiled
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import no_waiting

from pg.benchmarks import leaderboard, learning
from pg.benchmarks.leaderboard.measurements import SNAPSHOTS_JSON, read_versions
from pg.benchmarks.leaderboard.problems import SNAPSHOTS
from pg.benchmarks.leaderboard.quality import CurvePoint
from pg.commands import cli, job
from pg.config import Config, Hyperparams
from pg.reports import tables
from pg.reports.statistics import Estimate
from pg.runs import checkpoints, files, folders, memory, parameters, results
from pg.sweep import spec as specs

CONFIG = Config(hidden_sizes=(3,), num_updates=4, num_envs=2, preset=None)
COLUMNS = {
    "return": np.ones((2, 4), np.float32),
    "episodes": np.ones((2, 4), np.int32),
    "env_steps": np.ones((2, 4), int),
}
LIKE = {"policy": jnp.zeros(3)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return filled(tmp_path)


def filled(tmp_path: Path) -> Path:
    """A run of two seeds, with every kind of file that is read anywhere."""
    folders.write_setup(
        tmp_path, CONFIG, Hyperparams(), {"seed": 0, "seeds": 2, "shard": "seeds"}, {"pg": "0.1.0"}
    )
    folders.write_json(tmp_path / "summary.json", {"status": "finished", "num_updates": 4})
    folders.write_json(tmp_path / "sweep.json", {"width": 2})
    software = {"pg": "0.1.0", "jax": "0.10.2", "device": "cpu"}
    folders.write_json(tmp_path / "software.json", [software])
    results.write_metrics(tmp_path, COLUMNS, [0, 1])
    parameters.write_params(tmp_path, {"policy": np.zeros((2, 3), np.float32)})
    row = tmp_path / "Catch-bsuite" / "ppo"
    cell = row / "seeds-0-1"
    files.make_folder(cell)
    options = {"seed": 0, "seeds": 2, "eval_episodes": 3}
    folders.write_setup(cell, CONFIG, Hyperparams(), options, {"pg": "0.1.0"})
    results.write_metrics(cell, COLUMNS, [0, 1])
    seeds = [
        {"seed": seed, "env_steps": 8, "mean": score, "greedy": {"mean": 1.0}}
        for seed, score in enumerate([0.0, None])
    ]
    summary = {"status": "finished", "num_updates": 4, "failed_seeds": [1], "per_seed": seeds}
    folders.write_json(cell / "summary.json", summary)
    former = {
        "env": "Catch-bsuite",
        "label": "ppo",
        "seeds": [2, 3],
        "episodes": 3,
        "env_steps": [8, 8],
        "greedy": [1.0, None],
        "sampled": [0.0, 1],
        "config": CONFIG.to_json(),
        "hyperparams": Hyperparams().scalars(),
    }
    folders.write_json(row / "seeds-2-3.json", former)
    facts = {name: {"updates": 1, "explained": {"V": 0.5, "Q": None}} for name in SNAPSHOTS}
    folders.write_json(tmp_path / "snapshots.json", facts)
    part = {"field": "policy", "name": "p", "file": "/a/b.py", "sha256": "0" * 64, "imports": {}}
    folders.write_json(tmp_path / "parts.json", [part])
    point = CurvePoint("a", "b", "c", 1, 2, 3.0, 4.0, Estimate(5.0, 6.0, 7.0))
    tables.write_rows(tmp_path / "cosines.csv", CurvePoint, [point])
    result = learning.Result("a", "b", 0, 1.0, 2.0, 3)
    tables.write_rows(tmp_path / "results.csv", learning.Result, [result])
    return tmp_path


def shape_of(name: str, shape: Any) -> Callable[[Path], Any]:
    return lambda folder: folders.read_json(folder / name, shape)


CELL = "Catch-bsuite/ppo/seeds-0-1"
FORMER_CELL = "Catch-bsuite/ppo/seeds-2-3.json"
JSON: list[tuple[str, Callable[[Path], Any]]] = [
    ("config.json", folders.read_setup),
    ("config.json", folders.read_options),
    (
        "config.json",
        lambda folder: job._stored_identity(folder, Config(preset=None), job.Options()),
    ),
    ("config.json", results.read_metrics),
    ("config.json", lambda folder: parameters.read_params(folder, LIKE)),
    ("versions.json", shape_of("versions.json", folders.VERSIONS)),
    (
        "summary.json",
        lambda folder: job._ended(folder, 4, Config(num_updates=4, preset=None), job.Options()),
    ),
    ("sweep.json", specs.stored_width),
    ("sweep.json", lambda folder: [specs.stored_width(folder), specs.stored_versions(folder)]),
    ("config.json", results.load_results),
    ("summary.json", results.load_results),
    (f"{CELL}/config.json", learning.collect),
    (f"{CELL}/summary.json", learning.collect),
    (FORMER_CELL, learning.collect),
    ("snapshots.json", shape_of("snapshots.json", SNAPSHOTS_JSON)),
    ("parts.json", lambda folder: leaderboard.changed_parts(folder, [])),
    ("software.json", read_versions),
]
OTHER: list[tuple[str, Callable[[Path], Any]]] = [
    ("metrics.parquet", results.read_metrics),
    ("params.safetensors", lambda folder: parameters.read_params(folder, LIKE)),
    ("cosines.csv", lambda folder: tables.read_csv(folder / "cosines.csv", CurvePoint)),
    ("results.csv", lambda folder: tables.read_csv(folder / "results.csv", learning.Result)),
    ("metrics.parquet", results.load_results),
    (f"{CELL}/metrics.parquet", lambda folder: results.load_results(folder / CELL)),
]
READERS = [*JSON, *OTHER]
IDS = [f"{i}-{name}" for i, (name, _) in enumerate(READERS)]
TEXTS = [
    "",
    " ",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "NaN",
    "Infinity",
    '"x"',
    '"config"',
    "[]",
    "[[]]",
    "{}",
    "[{}]",
    "9" * 5000,
    "[" * 100_000,
    '{"a":' * 100_000,
    "[" * 500 + "]" * 500,
    "{",
    "\ufeff{}",
    '{"a": 1, "a": 2}',
    "\0",
    '{"config": [], "hyperparams": {}}',
    '{"config": {}, "hyperparams": null}',
    '{"width": "2"}',
    '{"width": true}',
    '{"width": 1e300}',
    '{"width": 0}',
    '{"width": 9999999999}',
    '{"width": -1}',
    '{"resumed": {}}',
    '{"resumed": [1]}',
    '{"resumed": [{"changed": 1}]}',
    '{"status": 1, "num_updates": 2}',
    '{"status": "finished", "num_updates": "4"}',
    '{"initial": 1, "middle": 2, "final": 3}',
    '{"\\ud800": 1}',
    '{"config": {"env": "\\ud800"}, "hyperparams": {}}',
]
BYTES = [
    *(text.encode(errors="surrogatepass") for text in TEXTS),
    b"\xff\xfe",
    b"\x80",
    bytes(range(256)),
    b"PAR1" * 9,
]


def one_sentence(read: Callable[[Path], Any], folder: Path, name: str) -> str | None:
    """The error's sentence; None where it could be read. Neither waits for anything."""
    try:
        with no_waiting():
            read(folder)
    except ValueError as error:
        said = str(error)
        assert str(folder) in said, name
        assert "\n" not in said, name
        assert len(said) < 1000 + len(str(folder)), name
        return said
    return None


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(("name", "read"), READERS, ids=IDS)
def test_any_bytes_in_any_file_are_read_or_one_sentence(folder: Path, name: str, read: Any) -> None:
    assert one_sentence(read, folder, name) is None
    read_all_the_same = []
    for data in BYTES:
        (folder / name).write_bytes(data)
        if one_sentence(read, folder, repr(data[:40])) is None:
            read_all_the_same.append(data)
    loose = name == "versions.json" or read is folders.read_options  # names with values are enough
    if name in ("parts.json", "software.json"):  # a list, which may be empty
        assert read_all_the_same == [b"[]"]
    else:
        assert all(loose and data.startswith(b"{") for data in read_all_the_same)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(("name", "value"), [("seeds", 0), ("seed", -1), ("seed", 2**32)])
def test_seeds_that_are_none_are_a_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: int
) -> None:
    here = filled(tmp_path_factory.mktemp("folder"))
    data = json.loads((here / "config.json").read_text())
    data["options"] = {**data.get("options", {}), name: value}
    (here / "config.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"config\.json is corrupt: its seeds are "):
        folders.read_options(here)


def places(data: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The ways to every value in JSON."""
    inside = (
        data.items()
        if isinstance(data, dict)
        else enumerate(data)
        if isinstance(data, list)
        else ()
    )
    return [path, *(place for name, x in inside for place in places(x, *path, name))]


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize(("name", "read"), JSON, ids=IDS[: len(JSON)])
def test_any_json_in_any_place_is_read_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, read: Any
) -> None:
    """One value of a whole file is something else."""
    here = filled(tmp_path_factory.mktemp("folder"))
    whole = json.loads((here / name).read_text())

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.sampled_from(places(whole)), VALUES)
    def changed(place: tuple[Any, ...], value: Any) -> None:
        data = json.loads(json.dumps(whole))
        inside = data
        for step in place[:-1]:
            inside = inside[step]
        if place:
            inside[place[-1]] = value
        (here / name).write_text(json.dumps(data if place else value))
        one_sentence(read, here, f"{place} is {value!r}")

    changed()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as ours:
            ours.bind(path.name)
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[Path], Any]] = {
    "a pipe": pipe,
    "a socket": bound,
    "a folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "read"), READERS, ids=IDS)
def test_what_is_no_plain_file_is_not_waited_for(
    folder: Path, name: str, read: Any, kind: str
) -> None:
    (folder / name).unlink()
    KINDS[kind](folder / name)
    said = one_sentence(read, folder, name)
    assert said is not None
    assert f"it is {kind}, where a plain file was expected" in said


def test_a_wait_is_seen(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(pytest.fail.Exception, match="still waiting"), no_waiting(0.1):
        (tmp_path / "pipe").read_bytes()


def test_a_device_is_not_opened() -> None:
    with pytest.raises(ValueError, match="cannot read /dev/zero: it is a device"):
        files.read_bytes(Path("/dev/zero"))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 2**40)
    with pytest.raises(
        ValueError,
        match=r"config.json has 1,099,511,627,776 bytes, where at most "
        r"67,108,864 were",
    ):
        folders.read_json(path)


@pytest.mark.parametrize(
    "text", ["[]", "null", '{"config": {}, "hyperparams": {}, "options": []}', "not json"]
)
def test_a_command_on_a_folder_of_something_else_ends_with_code_2(
    folder: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.parse("train.py", "", job.Options, ["--resume", str(folder)])
    assert ended.value.code == cli.MISTAKE
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder / 'config.json'} ")
    assert said.count("\n") == 1


# Tables


def table_of(path: Path, columns: dict[str, Any], **options: Any) -> None:
    parquet.write_table(pyarrow.table(columns), path, **options)


MANY = np.zeros(10**6)
TABLES: dict[str, tuple[dict[str, Any], str]] = {
    "more rows than updates": (
        {"seed": MANY},
        "1,000,000 rows, where at most 8 can have been written",
    ),
    "texts": ({"seed": ["x"] * 8}, "is of type 'string'"),
    "lists": ({"seed": [[1.0]] * 8}, "is of type|duplicate names"),
    "a structure": ({"seed": [{"a": 1, "b": 2}] * 8}, "is of type|duplicate names"),
    "bytes": ({"seed": [b"x"] * 8}, "is of type 'binary'"),
    "times": ({"seed": np.zeros(8, "datetime64[s]")}, "is of type 'timestamp"),
    "a long text": ({"seed": ["x" * 10**7] * 8}, "is of type 'string'"),
}


@pytest.mark.acceptance("S8")
@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_a_run_cannot_have_written_is_not_unpacked(
    folder: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, said = TABLES[case]
    table_of(folder / "metrics.parquet", columns)
    monkeypatch.setattr(parquet.ParquetFile, "read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match=said):
        results.read_metrics(folder)


def test_a_table_that_does_not_fit_into_memory_is_not_unpacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing says how many rows there can be."""
    path = folder / "metrics.parquet"
    monkeypatch.setattr(memory, "free", lambda: 10**6)
    table_of(path, {"x": MANY})
    with pytest.raises(ValueError, match=r"it would unpack to 7\.63 MiB, where 977 KiB are free"):
        tables.read_parquet(path)


def test_a_text_that_comes_often_is_in_memory_once(folder: Path) -> None:
    """A few kilobytes of a file would unpack to 3 GiB."""
    path = folder / "x.parquet"
    column = pyarrow.DictionaryArray.from_arrays(np.zeros(3000, np.int32), ["x" * 2**20])
    table_of(path, {"x": column}, store_schema=False)
    with pytest.raises(
        ValueError,
        match=r"corrupt, remove it: it would unpack to 1 MiB, for 3,000 "
        r"rows of 1",
    ):
        tables.read_parquet(path, texts=True)
    column = pyarrow.DictionaryArray.from_arrays(np.zeros(3000, np.int32), ["x" * 2**17])
    table_of(path, {"x": column}, store_schema=False)
    found = tables.read_parquet(path, texts=True)["x"]
    assert len(found) == 3000
    assert len({id(x) for x in found}) == 1


def test_texts_come_back_as_they_were_written(tmp_path: Path) -> None:
    columns = {
        "name": np.array(["a", "b", "a", None], object),
        "x": [1, 2, 3, 4],
        "flag": [True, False, True, True],
    }
    tables.write_parquet(tmp_path / "x.parquet", columns)
    found = tables.read_parquet(tmp_path / "x.parquet", texts=True)
    assert {name: x.tolist() for name, x in found.items()} == {
        name: list(x) for name, x in columns.items()
    }


def test_parameters_of_more_seeds_than_the_run_has_are_not_read(folder: Path) -> None:
    for shape in ((3, 3), (2, 2, 3), (2, 4), (3, 2)):
        parameters.write_params(folder, {"policy": np.zeros(shape, np.float32)})
        with pytest.raises(
            ValueError,
            match=r"policy is F32\[.*\], where F32\[3\], with a leading axis of 2 seeds,",
        ):
            parameters.read_params(folder, LIKE)


def test_rows_of_a_sweep_are_those_of_its_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chunk whose files say something else is run again; nothing of it is used."""
    spec = specs.SweepSpec(CONFIG, Hyperparams(), {"learning_rate": [0.1, 0.2]}, range(2))
    rows = dict.fromkeys(specs.RESULTS, np.ones(2))
    good = {
        "run": [0, 1],
        "configuration": [0, 0],
        "seed": [0, 1],
        "learning_rate": [0.1, 0.1],
        **rows,
    }
    bad: dict[str, dict[str, Any]] = {
        "other runs": good | {"run": [0, 7]},
        "too many": {name: np.repeat(x, 10) for name, x in good.items()},
        "texts": good | {"mean": ["x", "y"]},
        "a column less": {name: x for name, x in good.items() if name != "finite"},
    }
    for name, columns in {"good": good, **bad}.items():
        specs.make(tmp_path)
        tables.write_parquet(tmp_path / "runs" / "000000-000001.parquet", columns)
        tables.write_parquet(
            tmp_path / "metrics" / "000000-000001.parquet", {"run": np.repeat([0, 1], 4)}
        )
        done, _ = specs.start(spec, tmp_path)
        assert done == (2 if name == "good" else 0), name
        assert ("are run again" in capsys.readouterr().out) == (name != "good"), name


# Links


@pytest.fixture
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of another user, named like ours."""
    place = tmp_path_factory.mktemp("outside")
    for name in (
        "victim",
        f"00000001.{'0' * 64}.safetensors",
        "metrics-00000000-00000001.parquet",
        ".x.json.tmp",
    ):
        (place / name).write_text("mine")
    return place


def untouched(outside: Path) -> bool:
    return sorted(path.read_text() for path in outside.iterdir()) == ["mine"] * 4


@pytest.mark.acceptance("S9")
def test_what_is_written_goes_through_no_link(folder: Path, outside: Path) -> None:
    """Neither by the name of a file, nor by a name beside it that could be guessed."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    for name in names:
        for place in (folder / name, folder / f".{name}.tmp"):
            place.unlink(missing_ok=True)
            place.symlink_to(outside / "victim")
    filled(folder)
    assert untouched(outside)
    assert all(not (folder / name).is_symlink() for name in names)


@pytest.mark.acceptance("S9")
def test_a_new_file_goes_through_no_link_even_if_its_name_was_guessed(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / ".x.json.00000000.tmp").symlink_to(outside / "victim")
    with pytest.raises(OSError, match=r"cannot write .*x\.json: File exists"):
        folders.write_json(tmp_path / "x.json", {})
    assert untouched(outside)


@pytest.mark.acceptance("S9")
def test_a_lock_is_a_file_of_our_own(tmp_path: Path, outside: Path) -> None:
    lock = tmp_path / ".lock"
    said = {
        lock.symlink_to: "is a link: remove it",
        lock.hardlink_to: "is not a lock file of pg: remove it",
    }
    for make, message in said.items():
        make(outside / "victim")
        with pytest.raises(ValueError, match=rf"\.lock {message}"), folders.locked(tmp_path):
            pass
        lock.unlink()
        assert untouched(outside)
    os.mkfifo(lock)
    with (
        pytest.raises(
            ValueError,
            match=r"\.lock is not a lock file of "
            r"pg",
        ),
        folders.locked(tmp_path),
    ):
        pass


@pytest.mark.acceptance("S9")
def test_nothing_is_removed_or_written_in_a_folder_that_is_a_link(
    tmp_path: Path, outside: Path
) -> None:
    place = tmp_path / "checkpoints"
    place.symlink_to(outside)
    doings: list[Callable[[], object]] = [
        lambda: checkpoints.CheckpointWriter(place, {}, {"seed": np.arange(1)}),
        lambda: checkpoints.restore(place, (), {}, 1),
        lambda: files.make_folder(place),
        lambda: files.make_folder(place / "chunk", within=tmp_path),
    ]
    for do in doings:
        with pytest.raises(
            ValueError, match="checkpoints is a link, and files in it would be elsewhere"
        ):
            do()
    checkpoints.discard(place)
    checkpoints.forget_after(place, 0)
    files.remove_leftovers(place)
    assert untouched(outside)
    assert place.is_symlink()


@pytest.mark.acceptance("S9")
def test_what_is_removed_is_a_plain_file_of_our_own(tmp_path: Path, outside: Path) -> None:
    """Nothing that another user has put beside it, under another name or of another kind."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".vimrc.tmp").write_text("mine")
    (tmp_path / f"00000002.{'1' * 64}.safetensors").mkdir()
    (tmp_path / f"00000003.{'1' * 64}.safetensors").symlink_to(outside / "victim")
    before = set(tmp_path.iterdir())
    for name in (
        f"00000004.{'1' * 64}.safetensors",
        "metrics-00000000-00000004.parquet",
        ".x.json.01234567.tmp",
    ):
        (tmp_path / name).write_text("ours")
    checkpoints.forget_after(tmp_path, 0)
    checkpoints.discard(tmp_path)
    assert set(tmp_path.iterdir()) == before
    assert untouched(outside)


def test_results_may_be_a_link_and_what_is_below_may_not(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    made = folders.named(tmp_path / "results", CONFIG, "mine")
    assert made == tmp_path / "disk" / "CartPole-v1" / "reinforce" / "mine"
    (tmp_path / "disk" / "CartPole-v1" / "reinforce" / "other").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="is a link to another folder"):
        folders.named(tmp_path / "results", CONFIG, "other")


# The disk


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The calls of the operating system, in order: files without their random digits."""
    seen: list[tuple[str, str]] = []

    def plain(path: object) -> str:
        return re.sub(r"\.[0-9a-f]{8}\.", ".#.", Path(str(path)).name)

    def record(name: str, described: Callable[..., str]) -> None:
        original = getattr(os, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            seen.append((name, described(*args)))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, called)

    record("fsync", lambda number: plain(os.readlink(f"/proc/self/fd/{number}")))
    record("replace", lambda old, new: plain(new))
    record("mkdir", lambda path, *_: plain(path))
    return seen


@pytest.mark.acceptance("C11")
def test_a_name_is_on_the_disk_after_what_it_names(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    folders.write_json(tmp_path / "x.json", {})
    assert calls == [("fsync", ".x.json.#.tmp"), ("replace", "x.json"), ("fsync", tmp_path.name)]


@pytest.mark.acceptance("C11")
def test_a_new_folder_is_on_the_disk_with_those_above_it(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    folders.create(tmp_path, CONFIG, 0)
    made = [name for what, name in calls if what == "mkdir"]
    assert made[:2] == ["CartPole-v1", "reinforce"]
    above = [tmp_path.name, *made[:2]]
    assert calls == [
        call
        for name, top in zip(made, above, strict=True)
        for call in (("mkdir", name), ("fsync", top))
    ]


@pytest.mark.acceptance("C11")
def test_a_checkpoint_is_on_the_disk_before_the_one_before_it_is_removed(
    tmp_path: Path, calls: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = checkpoints.CheckpointWriter(
        tmp_path / "checkpoints", {}, {"seed": np.arange(2)}, updates=2, max_to_keep=1
    )
    unlink = Path.unlink
    monkeypatch.setattr(
        Path,
        "unlink",
        lambda path, **how: [calls.append(("unlink", path.name[:8])), unlink(path, **how)],
    )
    for done in (2, 4):
        part = {name: x[:, :2] for name, x in COLUMNS.items()}
        keeper(done, lambda: {"w": np.zeros((2, 3))}, part, True)  # type: ignore[arg-type, return-value]
    after = calls[[what for what, _ in calls].index("unlink") - 6 :]
    assert [what for what, _ in after] == ["fsync", "replace", "fsync"] * 2 + ["unlink"]
    assert after[2] == after[5] == ("fsync", "checkpoints")
    assert after[-1] == ("unlink", "00000002")
    assert calls[:2] == [("mkdir", "checkpoints"), ("fsync", tmp_path.name)]


def test_a_file_system_that_cannot_sync_folders_is_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = os.fsync

    def refuse(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(22, "Invalid argument")
        original(number)

    monkeypatch.setattr(os, "fsync", refuse)
    folders.write_json(tmp_path / "x.json", {"a": 1})
    assert folders.read_json(tmp_path / "x.json") == {"a": 1}


# Settings


@pytest.mark.parametrize(
    "values",
    [
        {"hidden_sizes": [1] * 10**5},
        {"hidden_sizes": [2**30, 2**30]},
        {"hidden_sizes": [10**9 + 1]},
        {"rnn": "lstm", "rnn_size": 10**6},
    ],
)
def test_a_network_that_nobody_can_want_is_refused_before_it_is_built(
    values: dict[str, Any],
) -> None:
    with (
        compiled() as programs,
        pytest.raises(
            ValueError,
            match=r"hidden_sizes .*must .*at most [\d,]+ (layers|weights), "
            r"got [\d,]+",
        ),
    ):
        Config(**values, preset=None)
    assert programs == []


def test_a_first_layer_that_is_too_wide_for_the_observation_is_refused() -> None:
    from pg.train import make_learner

    with pytest.raises(
        ValueError,
        match=r"at most 1,000,000,000 weights, got 4,000,000,000, with "
        r"4 input",
    ):
        make_learner(Config(hidden_sizes=(10**9,), preset=None))


def test_a_batch_that_is_larger_than_the_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from pg import envs

    env = envs.make_env("CartPole-v1", 1)
    monkeypatch.setattr(memory, "_total", lambda: 2**30)
    memory.check(Config(preset=None), env, (), 1, 100)
    memory.check(Config(num_envs=45_000, horizon=800, preset=None), env, (), 1, 1)
    large: list[tuple[dict[str, Any], int, int]] = [
        ({"num_envs": 10**6, "horizon": 2000}, 1, 1),
        ({"num_envs": 45_000, "horizon": 800, "optimizer": "harpg"}, 1, 1),
        ({"num_envs": 10**6, "collect": "windows", "estimator": "gae", "num_steps": 2000}, 1, 1),
        ({"num_epochs": 10**8, "num_envs": 4, "estimator": "ppo", "num_updates": 1}, 1, 1),
        (
            {
                "estimator": "ppo",
                "collect": "windows",
                "num_envs": 4,
                "num_steps": 1000,
                "minibatch_size": 500,
            }
            | {"num_epochs": 10**5, "num_updates": 1},
            1,
            1,
        ),
        ({}, 10**7, 1),
        ({}, 1, 10**9),
    ]
    for values, seeds, episodes in large:
        with pytest.raises(
            ValueError,
            match=r"at least [\d.]+ \w+ for [\d,]+ seeds? of num_envs=\d+, but only 1.0 GiB "
            r"available: fewer",
        ):
            memory.check(Config(**values, preset=None), env, (), seeds, episodes)


def test_the_control_variates_of_gradients_need_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gradient for each of 4000 episodes: 40,000 parameters each, 0.6 GiB."""
    from pg import envs
    from pg.train import make_learner

    env = envs.make_env("CartPole-v1", 1)
    monkeypatch.setattr(memory, "_total", lambda: 2**29)
    fitting = contextlib.nullcontext()
    too_large = pytest.raises(ValueError, match="memory: at least")
    expected = {"trajectory_control_variate": fitting, "gradient_control_variate": too_large}
    for name, outcome in expected.items():
        config = Config(
            estimator=name, num_envs=4000, horizon=10, hidden_sizes=(195, 195), preset=None
        )
        like = jax.eval_shape(make_learner(config).init, jax.random.key(0))
        with outcome:
            memory.check(config, env, like, 1, 0)


@pytest.mark.parametrize(
    ("there", "here", "setting"), [("float32", "float64", 0), ("float64", "float32", 1)]
)
def test_parameters_of_another_precision_name_the_setting_of_jax(
    folder: Path, there: str, here: str, setting: int
) -> None:
    parameters.write_params(folder, {"policy": np.zeros((2, 3), there)})
    with pytest.raises(
        ValueError, match=f"written with JAX_ENABLE_X64={setting}.* set JAX_ENABLE_X64={setting}"
    ):
        parameters.read_params(folder, {"policy": np.zeros(3, here)})
