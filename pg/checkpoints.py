"""Checkpoints: all that runs side by side need to go on, bit for bit, from the update after which they were kept.

    FOLDER/00000040/                             the runs after update 40
        state/                                   their states, leaves [n, ...], written by Orbax
        manifest.json                            what they are states of; every file and array; digests
    FOLDER/metrics-00000000-00000040.parquet     what was measured in updates 0 .. 39

A folder appears whole, by one renaming, after the metrics it needs. It is used only if every file has the digest in
its manifest and every array the type and the shape that the run at hand has: Orbax itself would restore flipped bytes
and cast other types without a word. No key is kept, since an update's key follows from its number.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pg import devices, folders, results
from pg.runs import Begun
from pg.train import TrainState

FORMAT = 1  # of the manifest; another one is refused
MANIFEST = "manifest.json"
_LARGEST_MANIFEST = 2**24  # bytes
_FILLED = 2**12  # runs that only fill up the devices are fewer
_OVERHEAD = 2**20  # bytes that files may have beyond twice the arrays
# What bits can depend on, of `folders.environment`.
SOFTWARE = (
    *folders.PACKAGES,
    "device",
    "backend",
    "instructions",
    "xla_flags",
    "threefry_partitionable",
    "enable_x64",
)


class DamageError(ValueError):
    """A checkpoint that is not what was written."""


class Restored(NamedTuple):
    """What a folder of checkpoints has for a run."""

    begun: Begun
    remarks: list[str]  # what people should know of it
    changed: list[str]  # what bits can depend on and is another than when it was kept

    def said(self) -> list[str]:
        """All of it, for people."""
        changed = f"note: bits may differ from an uninterrupted run, as {'; '.join(self.changed)}"
        return [*self.remarks, *([changed] if self.changed else []), f"going on after update {self.begun.updates}"]


class Keeper:
    """Keeps runs while they are trained (a `runs.Keep`): the last few checkpoints, written in the background.

    Of the processes of a job the first one writes; all must call.
    """

    def __init__(
        self,
        folder: Path | None,
        about: Mapping[str, Any],
        columns: Mapping[str, np.ndarray],
        *,
        begun: Begun | None = None,
        minutes: float = 1.0,
        updates: int | None = None,
        most: int = 2,
    ) -> None:
        """folder: none in processes that do not write. about: settings, to be compared when runs are restored.

        columns: what the rows of the metrics are of, [kept] each. minutes, updates: from one checkpoint to the next,
        whichever comes first. most: checkpoints that are kept.
        """
        self.folder, self.about, self.columns, self.most = folder, about, dict(columns), most
        self.minutes, self.updates = minutes, updates  # most time, most updates from one checkpoint to the next
        self.rows: list[dict[str, np.ndarray]] = []
        self.kept = begun.updates if begun else 0  # updates done at the last checkpoint
        self.env_steps = begun.metrics["env_steps"].sum(axis=1, dtype=np.int64) if begun else 0
        self.since = time.monotonic()
        self.writer = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None
        if folder:
            folder.mkdir(exist_ok=True)
            forget_after(folder, self.kept)

    def __call__(
        self, done: int, states: Callable[[], TrainState], metrics: dict[str, np.ndarray], last: bool
    ) -> None:
        """Keeps the runs if it is time; at last in any case. Raises OSError where the last time did not work."""
        self.rows.append(metrics)
        due = time.monotonic() - self.since >= 60 * self.minutes
        due |= self.updates is not None and done - self.kept >= self.updates
        if not (last or devices.agreed(int(due))):
            return
        held = jax.tree.map(np.array, states())  # copies: the devices' own buffers are used again
        rows = {name: np.concatenate([row[name] for row in self.rows], axis=1) for name in metrics}
        self.wait()
        if self.folder:
            table = results.long_form(rows, first=self.kept, before=self.env_steps, **self.columns)
            self.pending = self.writer.submit(self._write, self.folder, self.kept, done, held, table)
        self.env_steps = self.env_steps + rows["env_steps"].sum(axis=1, dtype=np.int64)
        self.rows, self.kept, self.since = [], done, time.monotonic()
        if last:
            self.wait()

    def wait(self) -> None:
        """Until what is being written is written. Raises OSError, with the path, where it could not be."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def _write(self, folder: Path, start: int, done: int, states: TrainState, table: Mapping[str, Any]) -> None:
        name = f"metrics-{start:08}-{done:08}.parquet"
        results.write_table(folder / name, table)
        kept = {"num_kept": len(next(iter(self.columns.values())))}
        save(folder, done, states, {**kept, **self.about})
        for old in steps(folder)[self.most :]:
            shutil.rmtree(folder / f"{old:08}", ignore_errors=True)


def save(folder: Path, done: int, states: TrainState, about: Mapping[str, Any]) -> None:
    """Writes the checkpoint FOLDER/<done>. states: numpy arrays [n, ...].

    Raises OSError, with the path, where that is not possible.
    """
    place, temporary = folder / f"{done:08}", folder / f".{done:08}.tmp"
    arrays = _arrays(states)
    with folders.saying(place), _as_os_error():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            with _orbax() as (checkpointer, args):
                # It writes nothing of arrays without elements, and refuses them.
                checkpointer.save(temporary / "state", args=args.StandardSave(_filled(arrays)))
            for path in _files(temporary):
                folders.to_disk(temporary / path)
            manifest = {
                "format": FORMAT,
                "updates": done,
                "leaves": {name: _kind(x.dtype, x.shape) for name, x in arrays.items()},
                "files": {path: _digest(temporary / path) for path in _files(temporary)},
                "metrics": {path.name: _digest(path) for path in _parts(folder, done)},
                **about,
            }
            manifest["digest"] = _digest_of(manifest)
            folders.write_json(temporary / MANIFEST, manifest)
            shutil.rmtree(place, ignore_errors=True)
            os.replace(temporary, place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def restore(folder: Path, like: TrainState, about: Mapping[str, Any], num_kept: int) -> Restored | None:
    """The newest checkpoint that is whole; None if there is none.

    like: the state of one run, as of `jax.eval_shape`. about: as of `Keeper`. num_kept: runs that have metrics.
    Raises ValueError for the checkpoint of other settings or another network, saying what differs, and DamageError
    where all are damaged.
    """
    folders.remove_leftovers(folder)
    remarks = []
    for done in steps(folder):
        try:
            begun, manifest = _read(folder, done, like, about, num_kept)
        except DamageError as error:
            remarks.append(f"{error}: going back to the checkpoint before it")
        except (AttributeError, KeyError, TypeError):  # a manifest that was made to mislead
            remarks.append(f"{folder / f'{done:08}'} is damaged: going back to the checkpoint before it")
        else:
            return Restored(begun, remarks, _changes(manifest["versions"], about["versions"]))
    if remarks:
        raise DamageError(f"{remarks[-1].partition(': going')[0]}, and there is none before it: remove {folder}")
    return None


def shared(found: Restored | None, like: TrainState, num_kept: int) -> Begun | None:
    """What the first process of a job has found, in all of them. Arguments of `restore`, and what it gave there."""
    if jax.process_count() == 1:
        return found.begun if found else None
    if not (updates := devices.agreed(found.begun.updates if found else 0)):
        return None
    num_runs = devices.agreed(len(found.begun.states.update) if found else 0)
    if found:
        return Begun(devices.shared(found.begun.states), found.begun.metrics)
    states = jax.tree.map(lambda x: np.zeros((num_runs, *x.shape), x.dtype), like)
    return Begun(devices.shared(states), {"env_steps": np.zeros((num_kept, updates), np.int32)})


def steps(folder: Path) -> list[int]:
    """The updates after which there is a checkpoint, the last one first."""
    return sorted((int(path.name) for path in folder.glob("[0-9]" * 8) if path.is_dir()), reverse=True)


def forget_after(folder: Path, done: int) -> None:
    """Removes all that comes after update `done`: it is about to come again."""
    for step in steps(folder):
        if step > done:
            shutil.rmtree(folder / f"{step:08}", ignore_errors=True)
    for path in folder.glob("metrics-*.parquet"):
        if _span(path)[1] > done:
            path.unlink(missing_ok=True)


def read_metrics(folder: Path, done: int | None = None) -> dict[str, np.ndarray]:
    """The rows of updates before `done`, of all if None, part by part. Raises ValueError where some are damaged."""
    tables = [results.read_table(path) for path in _parts(folder, done)]
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]} if tables else {}


def _read(
    folder: Path, done: int, like: TrainState, about: Mapping[str, Any], num_kept: int
) -> tuple[Begun, Mapping[str, Any]]:
    """A checkpoint, once all of it is found to be what was written, and of these settings."""
    place = folder / f"{done:08}"
    manifest = _manifest(place)
    _check_settings(place, manifest, about)
    leaves = _arrays(like)
    num_runs = _check_leaves(place, manifest, leaves)
    if (
        manifest["num_kept"] != num_kept
        or not num_kept <= num_runs < num_kept + _FILLED
        or manifest["updates"] != done
    ):
        raise DamageError(f"{place / MANIFEST} is damaged")
    _check_files(folder, place, manifest, sum(num_runs * x.size * x.dtype.itemsize for x in leaves.values()))
    template = {name: np.zeros((num_runs, *x.shape), x.dtype) for name, x in leaves.items()}
    try:
        with _orbax() as (checkpointer, args):
            found = checkpointer.restore(place / "state", args=args.StandardRestore(_filled(template)))
    except Exception as error:
        raise DamageError(f"{place} is damaged ({str(error).splitlines()[0][:100]})") from None
    found = {**template, **found}
    metrics = _joined(read_metrics(folder, done), num_kept, done)
    return Begun(jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in leaves]), metrics), manifest


def _manifest(place: Path) -> dict[str, Any]:
    path = place / MANIFEST
    try:
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST_MANIFEST:
            raise ValueError
        manifest = dict(json.loads(path.read_bytes()))
        digest = manifest.pop("digest")
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise DamageError(f"{path} is missing or damaged") from None
    if digest != _digest_of(manifest):
        raise DamageError(f"{path} is damaged")
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{place} has format {manifest.get('format')}, and this pg reads format {FORMAT}: go on with pg "
            f"{manifest.get('versions', {}).get('pg')}, or start anew"
        )
    return manifest


def _check_settings(place: Path, manifest: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    there, here = manifest.get("setup"), folders.jsonable(about["setup"])
    if differences := folders.differing(there, here):
        raise ValueError(f"{place} is of another run: {'; '.join(differences)}")


def _check_leaves(place: Path, manifest: Mapping[str, Any], like: Mapping[str, Any]) -> int:
    """The number of runs n in a checkpoint whose arrays are those of `like`, with n in front."""
    there = manifest["leaves"]
    if odd := sorted(set(there) ^ set(like)):
        where = "only there" if odd[0] in there else "only here"
        raise ValueError(f"{place} is of another network, optimizer or environment: {odd[0]} is {where}")
    num_runs = int(there[".update"].partition("[")[2].rstrip("]"))
    for name, x in like.items():
        if there[name] != (kind := _kind(x.dtype, (num_runs, *x.shape))):
            raise ValueError(f"{place} is of another network: {name} is {there[name]} there and {kind} here")
    return num_runs


def _check_files(folder: Path, place: Path, manifest: Mapping[str, Any], num_bytes: int) -> None:
    """That every file is there, is a file, and is what was written; names in a manifest are not opened."""
    found = _files(place)
    if sum((place / path).stat().st_size for path in found) > 2 * num_bytes + _OVERHEAD:
        raise DamageError(f"{place} holds what does not belong there")
    parts = {path.name: path for path in _parts(folder, manifest["updates"])}
    for where, wanted, paths in (
        (place, manifest["files"], {path: place / path for path in found if path != MANIFEST}),
        (folder, manifest["metrics"], parts),
    ):
        if odd := sorted(set(wanted) ^ set(paths)):
            raise DamageError(f"{where / odd[0]} is missing, or does not belong there")
        for name, path in paths.items():
            if path.is_symlink() or _digest(path) != wanted[name]:
                raise DamageError(f"{path} is damaged")


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    return folders.differing({k: there.get(k) for k in SOFTWARE}, {k: here.get(k) for k in SOFTWARE})


def _joined(rows: Mapping[str, np.ndarray], num_runs: int, done: int) -> dict[str, np.ndarray]:
    """Metrics [n, done] of rows, parts of which have one run after the other."""
    order = np.argsort(rows["update"], kind="stable")  # runs of an update stand in the order of their parts
    if len(order) != num_runs * done or (rows["update"][order] != np.repeat(np.arange(done), num_runs)).any():
        raise DamageError("the metrics lack updates, or have some twice")
    first = list(rows).index("total_env_steps") + 1  # before it, what the rows are of
    return {name: rows[name][order].reshape(done, num_runs).T for name in list(rows)[first:]}


def _parts(folder: Path, done: int | None = None) -> list[Path]:
    """The files of metrics before update `done`, in order."""
    return [path for path in sorted(folder.glob("metrics-*.parquet")) if done is None or _span(path)[1] <= done]


def _span(path: Path) -> tuple[int, int]:
    """The updates of a file of metrics."""
    _, start, end = path.stem.split("-")
    return int(start), int(end)


def _files(place: Path) -> list[str]:
    """All files below a folder by their relative names. Raises DamageError if something else is there."""
    names = []
    for at, subfolders, files in os.walk(place):
        for name in [*subfolders, *files]:
            path = Path(at, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise DamageError(f"{path} is neither a file nor a folder")
        names += [str(Path(at, name).relative_to(place)) for name in files]
    return sorted(names)


def _arrays(tree: Any) -> dict[str, Any]:
    """Leaves by their path in the tree."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _filled(arrays: Mapping[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in arrays.items() if x.size}


def _kind(dtype: Any, shape: Sequence[int]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_of(manifest: Mapping[str, Any]) -> str:
    text = json.dumps(folders.jsonable(manifest), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _orbax() -> Iterator[tuple[Any, Any]]:
    """A checkpointer of this process alone, whatever others are in the job, and its kinds of arguments."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what goes wrong is raised, and said in one sentence
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="pg"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as checkpointer:
        yield checkpointer, ocp.args


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """The library's own errors in writing, whose reason stands in a long text."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        full = "No space left" in str(error)
        raise OSError(errno.ENOSPC if full else 0, str(error).splitlines()[0][:200]) from None
