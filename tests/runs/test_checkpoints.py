"""Checkpoints: restored bit for bit; corrupt, foreign or hostile ones are refused before they are
used.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import safetensors.numpy
from limits import bytes_read, no_waiting

from pg.commands import job
from pg.config import Config, Hyperparams
from pg.envs.adapters.base import HostError
from pg.fast import devices
from pg.inputs import shown
from pg.runs import checkpoints, execution, files, folders
from pg.runs.checkpoints import CheckpointWriter, DamageError
from pg.runs.execution import Programs
from pg.runs.migrations import migrated
from pg.train import make_learner

CONFIG = Config(
    estimator="actor_critic",
    collect="windows",
    num_envs=4,
    num_steps=8,
    num_updates=10,
    hidden_sizes=(8,),
    normalise_observations=True,
    scale_rewards=True,
    preset=None,
)
SEEDS = range(2)
DATA = Path(__file__).parents[1] / "data"


class Kept(NamedTuple):
    """A run of ten updates with a checkpoint after each of them."""

    folder: Path
    programs: Programs
    keys: Any
    hyperparams: Any
    trained: execution.TrainResult


VERSIONS = folders.environment()


def about(config: Config = CONFIG, **versions: Any) -> dict[str, Any]:
    setup = {
        "config": config.to_json(),
        "hyperparams": Hyperparams().scalars(),
        "seeds": len(SEEDS),
    }
    return {"setup": setup, "versions": VERSIONS | versions}


@functools.cache
def like(config: Config = CONFIG) -> Any:
    return jax.eval_shape(make_learner(config).init, jax.random.key(0))


def restore(folder: Path, config: Config = CONFIG, **versions: Any) -> checkpoints.Restored | None:
    return checkpoints.restore(folder, like(config), about(config, **versions), len(SEEDS))


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    a, b = (list(map(np.asarray, jax.tree.leaves(x))) for x in (a, b))
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    keys, _ = execution.seed_keys(SEEDS)
    h = execution.broadcast(Hyperparams(), len(SEEDS))
    programs = execution.compile_programs(CONFIG, h, devices.layout(most=1), len(SEEDS))
    keeper = CheckpointWriter(
        folder, about(), {"seed": np.asarray(SEEDS)}, updates=1, max_to_keep=20
    )
    trained = execution.train(programs, keys, h, on_checkpoint=keeper)
    return Kept(folder, programs, keys, h, trained._replace(states=jax.device_get(trained.states)))


def test_a_checkpoint_that_fails_before_the_fault_of_an_environment_is_reported(
    kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the last checkpoint: the states since then are lost."""

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    folder = tmp_path / "checkpoints"
    columns = {"seed": np.asarray(SEEDS)}
    writer = CheckpointWriter(folder, about(), columns, updates=2, minutes=60, hold=True)
    said = "^the step fails; the last updates are lost, as a checkpoint failed: .*No space left"

    def train() -> None:
        for begin, end in ((0, 2), (2, 3)):
            metrics = {name: x[:, begin:end] for name, x in kept.trained.metrics.items()}
            writer(end, lambda: kept.trained.states, metrics, last=False)
        raise HostError("the step fails")

    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.raises(HostError, match=said), job._with_resumption(CONFIG, tmp_path, writer):
        train()


@pytest.fixture
def one(kept: Kept, tmp_path: Path) -> Path:
    """A folder with the last checkpoint alone."""
    return only(kept, tmp_path, 10)


def only(kept: Kept, place: Path, *steps: int) -> Path:
    folder = place / "checkpoints"
    shutil.copytree(kept.folder, folder)
    for step in set(range(1, 11)) - set(steps):
        at(folder, step).unlink()
    return folder


def at(folder: Path, step: int) -> Path:
    """The file of a checkpoint."""
    (path,) = folder.glob(f"{step:08}.*.safetensors")
    return path


@pytest.mark.acceptance("C2")
def test_going_on_from_every_update_gives_the_same_bits(kept: Kept, tmp_path: Path) -> None:
    """From each of nine checkpoints, with the program that was compiled once."""
    for step in range(1, 10):
        restored = restore(only(kept, tmp_path / str(step), step))
        assert restored is not None
        assert (restored.partial.updates, restored.remarks, restored.changed) == (step, [], [])
        again = execution.train(
            kept.programs, kept.keys, kept.hyperparams, partial=restored.partial
        )
        assert same(again.states, kept.trained.states)
        assert same(again.metrics, kept.trained.metrics)


@pytest.mark.usefixtures("x64")
def test_numbers_of_another_precision_name_the_setting_of_jax(one: Path) -> None:
    """And not another network, which it is not."""
    expected = (
        f"{at(one, 10)} holds numbers of 32 bits, .* JAX_ENABLE_X64=0; .* has 64: set "
        f"JAX_ENABLE_X64=0"
    )
    wide = jax.eval_shape(make_learner(CONFIG).init, jax.random.key(0))
    with pytest.raises(ValueError, match=expected):
        checkpoints.restore(one, wide, about(enable_x64=True), len(SEEDS))


def test_a_short_last_chunk_on_many_devices_is_whole(kept: Kept, tmp_path: Path) -> None:
    """One run, which 5119 pad, as on five devices with 1024 runs each."""
    template = like(dataclasses.replace(CONFIG, num_envs=1, hidden_sizes=(1,)))
    states = jax.tree.map(lambda x: np.zeros((5120, *x.shape), x.dtype), template)
    metrics = {name: x[:1, :2] for name, x in kept.trained.metrics.items()}
    write = CheckpointWriter(tmp_path, about(), {"seed": np.arange(1)})
    write(2, lambda: states, metrics, last=True)
    found = checkpoints.restore(tmp_path, template, about(), 1)
    assert found is not None
    assert found.partial.updates == 2


def test_only_the_last_are_kept_and_nothing_half_written(kept: Kept, tmp_path: Path) -> None:
    (tmp_path / ".metrics-00000000-00000003.parquet.tmp").write_text("half")
    (tmp_path / f".00000003.{'0' * 64}.safetensors.0123abcd.tmp").write_text("half")
    assert restore(tmp_path) is None
    assert not list(tmp_path.iterdir())
    keeper = CheckpointWriter(
        tmp_path, about(), {"seed": np.asarray(SEEDS)}, updates=2, max_to_keep=3
    )
    execution.train(kept.programs, kept.keys, kept.hyperparams, on_checkpoint=keeper)
    assert checkpoints.steps(tmp_path) == [10, 8, 6]
    rows = checkpoints.read_metrics(tmp_path)
    assert sorted(rows["update"]) == sorted([*range(10)] * 2)


def test_a_checkpoint_waits_for_its_minutes(kept: Kept, tmp_path: Path) -> None:
    keeper = CheckpointWriter(tmp_path, about(), {"seed": np.asarray(SEEDS)}, minutes=60)
    execution.train(kept.programs, kept.keys, kept.hyperparams, on_checkpoint=keeper)
    assert checkpoints.steps(tmp_path) == [10]


def damaged(
    folder: Path, damage: Callable[[bytes, random.Random], bytes], times: int
) -> Iterator[None]:
    """The folder with one file of its last checkpoint damaged, so many times over."""
    rng = random.Random(0)
    paths = [*[at(folder, 10)] * 5, *folder.glob("metrics-*.parquet")]
    for _ in range(times):
        path = rng.choice(paths)
        whole = path.read_bytes()
        path.write_bytes(damage(whole, rng))
        yield
        path.write_bytes(whole)


def flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :]


@pytest.mark.acceptance("C5")
@pytest.mark.parametrize(
    ("damage", "times"),
    [
        (flip, 200),
        (lambda data, rng: data[: rng.randrange(len(data))], 200),
        (lambda data, rng: data + rng.randbytes(rng.randrange(1, 100)), 20),
    ],
    ids=["flipped", "truncated", "junk"],
)
def test_what_is_damaged_is_refused(one: Path, damage: Any, times: int) -> None:
    refused = 0
    for _ in damaged(one, damage, times):
        with pytest.raises(DamageError, match=r"is corrupt|missing|does not belong"):
            restore(one)
        refused += 1
    assert refused == times
    assert restore(one) is not None


@pytest.mark.parametrize("place", ["pyarrow.parquet.ParquetFile.read", "safetensors.safe_open"])
def test_what_cannot_be_read_at_present_is_not_taken_for_damaged(
    place: str, one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(place, failing)
    with pytest.raises(files.UnreadableError, match="cannot be read now"):
        restore(one)


@pytest.mark.acceptance("C5")
def test_it_falls_back_to_the_checkpoint_before(kept: Kept, tmp_path: Path) -> None:
    folder = only(kept, tmp_path, 9, 10)
    rng = random.Random(1)
    inside = [at(folder, 10), folder / "metrics-00000009-00000010.parquet"]
    for _ in range(20):
        path = rng.choice(inside)
        whole = path.read_bytes()
        path.write_bytes(flip(whole, rng))
        restored = restore(folder)
        assert restored is not None
        assert restored.partial.updates == 9
        assert "falling back to the one before" in restored.remarks[0]
        path.write_bytes(whole)
    again = execution.train(kept.programs, kept.keys, kept.hyperparams, partial=restored.partial)
    assert same(again.states, kept.trained.states)


OTHERS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_sizes": (9,)}, "Dense_0"),  # another width
    ({"hidden_sizes": (8, 8)}, "Dense_1"),  # a leaf that is missing
    ({"optimizer": "sgd", "critic_optimizer": "sgd"}, "opt_state"),  # leaves too many
    ({"optimizer": "lion"}, "opt_state"),
    ({"critic_optimizer": "rmsprop"}, "opt_state"),
    ({"env": "Acrobot-v1"}, "rollout"),
    ({"num_envs": 5}, "rollout"),
    ({"normalise_observations": False}, "normaliser.obs"),
    ({"scale_rewards": False}, "normaliser.extremes"),
    ({"rnn": "gru"}, "memory"),
    ({"shared_torso": True}, "torso"),
]


@pytest.mark.acceptance("C6")
@pytest.mark.parametrize(("changes", "leaf"), OTHERS, ids=[str(changes) for changes, _ in OTHERS])
def test_another_network_is_refused_by_its_leaves(
    one: Path, changes: dict[str, Any], leaf: str
) -> None:
    """Also where the settings that are compared first do not tell."""
    other = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(ValueError, match=f"is of another .*{leaf}") as caught:
        checkpoints.restore(one, like(other), about(), len(SEEDS))
    assert not isinstance(caught.value, DamageError)
    with pytest.raises(ValueError, match="is of another run: config"):
        checkpoints.restore(one, like(other), about(other), len(SEEDS))


@pytest.mark.acceptance("C6")
def test_another_type_is_refused(one: Path) -> None:
    halves = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, np.float16 if x.dtype == np.float32 else x.dtype),
        like(),
    )
    with pytest.raises(ValueError, match=r"F32\[2,.*in it and F16\[2,.*in this run"):
        checkpoints.restore(one, halves, about(), len(SEEDS))


@pytest.mark.acceptance("D6")
@pytest.mark.parametrize(
    "changed",
    [
        {"jax": "0.0.1"},
        {"instructions": "none"},
        {"xla_flags": "--xla_x"},
        {"device": "abacus"},
        {"num_devices": 64},
        {"num_processes": 9},
        {"shard": "envs"},
        {"num_cores": 999},
    ],
)
def test_other_software_or_another_device_is_said(one: Path, changed: dict[str, str]) -> None:
    restored = restore(one, **changed)
    assert restored is not None
    ((name, value),) = changed.items()
    assert restored.changed == [
        f"{name} is {shown(VERSIONS[name])} in the stored run and {value!r} in this one"
    ]
    assert restored.messages()[0].startswith("note: bits may differ from an uninterrupted run")


SETTINGS = {
    "jax_default_prng_impl": "rbg",
    "jax_random_seed_offset": 5,
    "jax_high_dynamic_range_gumbel": True,
    "jax_default_matmul_precision": "highest",
    "jax_numpy_dtype_promotion": "strict",
    "jax_disable_most_optimizations": None,
    "jax_optimization_level": "O1",
    "jax_use_shardy_partitioner": None,
}


@pytest.mark.acceptance("D6")
@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_jax_that_change_numbers_are_said(one: Path, name: str) -> None:
    before = jax.config.values[name]
    jax.config.update(name, not before if SETTINGS[name] is None else SETTINGS[name])
    try:
        now = folders.environment()
    finally:
        jax.config.update(name, before)
    (said,) = checkpoints.changes(folders.jsonable(VERSIONS), now)
    setting = name.removeprefix("jax_")
    assert (
        said
        == f"jax_settings.{setting} is {VERSIONS['jax_settings'][setting]!r} in the stored run and "
        + (f"{now['jax_settings'][setting]!r} in this one")
    )
    restored = restore(one, jax_settings=now["jax_settings"])
    assert restored is not None
    assert restored.changed == [said]


@pytest.mark.acceptance("D6")
def test_what_an_older_release_has_not_recorded_is_said() -> None:
    """In one sentence, and not as a difference; nothing that it holds instead is trusted to have a
    shape.
    """
    newer = ("jax_settings", "num_cores", "shard", "variables")
    older = {name: value for name, value in VERSIONS.items() if name not in newer}
    (said,) = checkpoints.changes(older, VERSIONS)
    assert said.startswith("the stored run has no record of ")
    assert all(name in said for name in newer)
    for odd in (None, [], 3, "x"):
        (said,) = checkpoints.changes({**VERSIONS, "jax_settings": odd}, VERSIONS)
        assert said.startswith(f"jax_settings is {odd!r} in the stored run and ")


def forge(path: Path, changes: Any = None, *, leaves: Any = None, text: str | None = None) -> Path:
    """A checkpoint that says something else, or has other arrays, under the digest that it has
    then.
    """
    data = path.read_bytes()
    with safetensors.safe_open(path, framework="numpy") as file:
        said = json.loads(file.metadata()["pg"])
    arrays = safetensors.numpy.load(data)
    said = {name: value for name, value in {**said, **(changes or {})}.items() if value is not DROP}
    arrays = {name: x for name, x in {**arrays, **(leaves or {})}.items() if x is not DROP}
    return put(
        path,
        safetensors.numpy.save(
            arrays, metadata={"pg": text if text is not None else json.dumps(said)}
        ),
    )


def put(path: Path, data: bytes) -> Path:
    path.unlink()
    path = path.with_name(f"{path.name[:8]}.{hashlib.sha256(data).hexdigest()}.safetensors")
    path.write_bytes(data)
    return path


DROP = object()


@pytest.mark.acceptance("C7")
def test_a_checkpoint_of_every_release_loads_or_says_what_to_do(one: Path) -> None:
    """tests/data has one of each format that was ever written."""
    fixtures = sorted(DATA.glob("checkpoints-format-*"))
    assert [path.name for path in fixtures] == [
        f"checkpoints-format-{i + 1}" for i in range(checkpoints.FORMAT)
    ]
    states = []
    for fixture in fixtures:
        with safetensors.safe_open(at(fixture, 2), framework="numpy") as file:
            setup = json.loads(file.metadata()["pg"])["setup"]
        setup = migrated(setup)
        config = Config.from_json(setup["config"])
        found = checkpoints.restore(fixture, like(config), {"setup": setup, "versions": {}}, 1)
        assert found is not None
        assert found.partial.updates == int(found.partial.states.update[0]) == 2
        states.append(found.partial.states)
    jax.tree.map(np.testing.assert_array_equal, *states)  # the same run, written twice
    forge(at(one, 10), {"format": 99})
    with pytest.raises(
        ValueError,
        match=r"has format 99, and this pg reads formats up to 2: continue with pg 0\.1\.0, or "
        r"restart",
    ):
        restore(one)


@pytest.mark.acceptance("C4")
def test_a_disk_that_is_full_costs_nothing_that_was_kept(kept: Kept, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the end of the disk, at twenty places."""
    folder = only(kept, tmp_path, 9)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    about_it = {"num_kept": len(SEEDS), "metrics": {}, **about()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in range(20):
        resource.setrlimit(resource.RLIMIT_FSIZE, (512 * size, hard))
        try:
            with pytest.raises(
                OSError,
                match=r"^\[Errno 27\] cannot write .*00000010.*: File too "
                r"large$",
            ):
                checkpoints.save(folder, 10, kept.trained.states, about_it)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    restored = restore(folder)
    assert restored is not None
    assert restored.partial.updates == 9


def header(leaves: dict[str, Any], payload: bytes = b"", size: int | None = None) -> bytes:
    """A file in the format of safetensors that claims what it likes."""
    text = json.dumps(leaves).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + payload


def raw(data: bytes) -> Callable[[Path], Any]:
    return lambda path: put(path, data)


def instead(make: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """Something that is no file in its place, under its name."""
    return lambda path: [path.unlink(), make(path)]


def hostile(path: Path) -> Iterator[tuple[str, Callable[[Path], Any]]]:
    """Malicious checkpoints: a name, and a function that makes one from a valid one."""
    arrays = safetensors.numpy.load(path.read_bytes())
    kernel = next(name for name in arrays if "kernel" in name)
    claim = {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}
    yield "a pickle", raw(b"cos\nsystem\n(S'touch owned'\ntR.")
    yield "empty", raw(b"")
    yield (
        "an npz",
        lambda p: [np.savez(p.with_name("x.npz"), a=1), put(p, p.with_name("x.npz").read_bytes())],
    )
    yield "a header of 4 TiB", raw(header({}, size=2**42))
    yield "a header of 8 GiB", raw(header({}, size=2**33))
    yield "a header that ends too soon", raw(header({}, size=7))
    yield (
        "no metadata",
        raw(header({kernel: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"0000")),
    )
    yield "an array of 4 TiB", raw(header({"__metadata__": {"pg": "{}"}, ".update": claim}))
    yield (
        "offsets backwards",
        raw(header({".update": {"dtype": "I32", "shape": [2], "data_offsets": [8, 0]}}, b"0" * 8)),
    )
    yield (
        "offsets shared",
        raw(
            header(
                {
                    k: {"dtype": "I32", "shape": [2], "data_offsets": [0, 8]}
                    for k in (".update", ".skipped")
                },
                b"0" * 8,
            )
        ),
    )
    yield (
        "an object",
        raw(header({".update": {"dtype": "O", "shape": [2], "data_offsets": [0, 8]}}, b"0" * 8)),
    )
    yield (
        "a shape below nothing",
        raw(header({".update": {"dtype": "I32", "shape": [-2], "data_offsets": [0, 8]}})),
    )
    yield "a header that is deep", raw(struct.pack("<Q", 100_000) + b"[" * 100_000)
    yield "members twice", raw(struct.pack("<Q", 64) + b'{".update":{},".update":{}}'.ljust(64))
    for text in (
        "",
        "[]",
        "1e999",
        "NaN",
        '{"digest": NaN}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "null",
        '"x"',
        "{}",
    ):
        yield f"it says {text[:20]!r}", lambda p, text=text: forge(p, text=text)
    for name in ("format", "setup", "num_kept", "updates", "metrics", "versions"):
        yield f"without {name}", lambda p, name=name: forge(p, {name: DROP})
    yield "another number of seeds", lambda p: forge(p, {"num_kept": 10**9})
    yield "another update", lambda p: forge(p, {"updates": 7})
    yield "metrics elsewhere", lambda p: forge(p, {"metrics": {"../../../../etc/passwd": "0"}})
    yield "metrics at the root", lambda p: forge(p, {"metrics": {"/etc/passwd": "0"}})
    yield "metrics in a list", lambda p: forge(p, {"metrics": ["x"]})
    yield (
        "metrics linked",
        lambda p: instead(lambda x: x.symlink_to("/etc/passwd"))(next(p.parent.glob("metrics-*"))),
    )
    yield "no leaves", lambda p: forge(p, leaves=dict.fromkeys(arrays, DROP))
    yield "a scalar", lambda p: forge(p, leaves={".update": np.array(1, np.int32)})
    yield "many runs", lambda p: forge(p, leaves={".update": np.zeros(10**6, np.int32)})
    yield "a leaf too many", lambda p: forge(p, leaves={"../../x": np.zeros(2)})
    yield "a bomb", lambda p: forge(p, leaves={kernel: np.zeros((2, 2**21), np.float32)})
    yield "8 GiB of nothing", lambda p: os.truncate(p, 2**33)
    yield "a link", instead(lambda p: p.symlink_to("/etc/passwd"))
    yield "a link to a device", instead(lambda p: p.symlink_to("/dev/zero"))
    yield "a folder", instead(lambda p: p.mkdir())
    yield "a pipe", instead(lambda p: os.mkfifo(p))
    yield (
        "two of one update",
        lambda p: p.with_name(f"{p.name[:8]}.{'0' * 64}.safetensors").write_bytes(b""),
    )


@pytest.mark.acceptance("S2")
def test_hostile_checkpoints_are_refused(one: Path, tmp_path: Path) -> None:
    """None is opened by the library, reads or takes 100 MB, or writes anything elsewhere."""

    corpus = list(hostile(at(one, 10)))
    assert len(corpus) >= 40
    for i, (name, make) in enumerate(corpus):
        folder = tmp_path / "hostile" / str(i) / "checkpoints"
        shutil.copytree(one, folder)
        make(at(folder, 10))
        names = set(tmp_path.rglob("*"))
        peak, read = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, bytes_read()
        with no_waiting(), pytest.raises(ValueError, match=r".") as caught:
            restore(folder)
        assert bytes_read() - read < 100e6, name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000, name
        assert set(tmp_path.rglob("*")) <= names, name
        assert "\n" not in str(caught.value), name


LOCK = """
import sys, time
from pathlib import Path
from pg.runs import folders
try:
    with folders.locked(Path(sys.argv[1])):
        print("mine", flush=True)
        time.sleep(float(sys.argv[2]))
except ValueError as error:
    sys.exit(str(error))
"""


@pytest.mark.acceptance("C9")
def test_one_process_works_in_a_folder(tmp_path: Path) -> None:
    """One of 32 that begin together; the others name it, and change nothing. A dead one keeps no
    lock, 20 times over.
    """
    command = [sys.executable, "-c", LOCK, str(tmp_path)]
    with subprocess.Popen([*command, "60"], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "mine\n"
        before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
        others = [
            subprocess.Popen([*command, "0"], stderr=subprocess.PIPE, text=True) for _ in range(31)
        ]
        for other in others:
            _, said = other.communicate(timeout=60)
            assert other.returncode == 1
            assert f"is in use by process {owner.pid} on " in said
        assert {
            path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir()
        } == before
        owner.kill()
    for _ in range(20):
        with (
            folders.locked(tmp_path),
            pytest.raises(ValueError, match=f"in use by process {os.getpid()} on"),
        ):
            folders.locked(tmp_path).__enter__()
