"""Checkpoints: everything that vmapped runs need to resume, bitwise identical to uninterrupted
ones, from the update after which they were written.

    FOLDER/00000040.<sha256>.safetensors   states after update 40, leaves [n, ...], and whose; with
                                           evaluations, the best parameters until then, best/...
    FOLDER/metrics-00000000-00000040.parquet    what was measured in updates 0 .. 39

A checkpoint is one file, which appears complete, by one renaming, after the metrics it needs. It is
read only if its bytes have the digest in its name, and used only if every array has the type and
shape of the current run's. No key is stored, since an update's key follows from its number.

Why not Orbax (0.12.8): it spreads a state over ten files; silently restores corrupted bytes and
casts mismatched dtypes; rejects empty arrays; and on a full disk keeps writing in background
threads, whose failure surfaces later.
"""

import hashlib
import json
import re
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pg.fast import devices
from pg.inputs import misfit, shown
from pg.reports import tables
from pg.runs import files, folders, parameters, periodic, results
from pg.runs.execution import MERGED, PartialRun, joined
from pg.runs.migrations import added, is_added, leaf_name, migrated
from pg.starting import named_leaves
from pg.train import TrainState

_CHECKPOINT = r"\d{8,}\.[0-9a-f]{64}\.safetensors"
FORMAT = 2  # of the files
# Format 1 wrote the names of arrays differently (`migrations.leaf_name`); others are refused.
READABLE = (1, 2)
_FILLED = 2**20  # fewer runs than this only pad a chunk, which may be as wide on many devices
_HEADER = 2**24  # bytes, at most
_BEST = "best/"  # the names of the best parameters of all evaluations so far
# The expected shape of a checkpoint's header (see `inputs.misfit`).
HEADER = {
    "format": int,
    "updates": int,
    "setup": dict,
    "versions": folders.VERSIONS,
    "num_kept": int,
    "metrics": {...: str},
}
# Exceptions that a maliciously made file can raise.
_MISLEADING = (OSError, ArithmeticError, AttributeError, LookupError, TypeError, RecursionError)
# Entries of `folders.environment` that bits can depend on.
SOFTWARE = (
    *folders.PACKAGES,
    "device",
    "backend",
    "platform_version",
    "num_devices",
    "num_processes",
    "shard",
    "num_cores",
    "instructions",
    "xla_flags",
    "variables",
    "jax_settings",
    "threefry_partitionable",
    "enable_x64",
)


class DamageError(ValueError):
    """A checkpoint whose content is not what was written."""


class Restored(NamedTuple):
    """The newest valid checkpoint of a run."""

    partial: PartialRun
    remarks: list[str]  # for the user
    changed: list[str]  # differences since it was written that bits can depend on
    # the entries of `resumed` in its versions: changes at earlier interruptions
    resumed: Sequence[dict[str, Any]] = ()

    def messages(self) -> list[str]:
        """All messages, for the user."""
        changed = f"note: bits may differ from an uninterrupted run, as {'; '.join(self.changed)}"
        return [
            *self.remarks,
            *([changed] if self.changed else []),
            f"continuing after update {self.partial.updates}",
        ]


class CheckpointWriter:
    """Writes checkpoints of runs during training (an `execution.OnCheckpoint`), in the background,
    and keeps the last few.

    Only the first process of a job writes; all must call.
    """

    def __init__(
        self,
        folder: Path | None,
        metadata: Mapping[str, Any],
        columns: Mapping[str, np.ndarray],
        *,
        partial: PartialRun | None = None,
        minutes: float = 1.0,
        updates: int | None = None,
        max_to_keep: int = 2,
        hold: bool = False,
    ) -> None:
        """folder: None in processes that do not write. metadata: settings, to be compared when runs
        are restored.

        columns: labels of the rows of the metrics, such as the seed, [num_logged] each. minutes,
        updates: from one checkpoint to the next, whichever comes first. max_to_keep: the number of
        checkpoints that are kept. hold: the states between checkpoints are kept in memory too, for
        `write_held`.
        """
        self.folder, self.metadata, self.columns = folder, metadata, dict(columns)
        self.max_to_keep = max_to_keep
        # largest time and number of updates from one checkpoint to the next
        self.minutes, self.updates = minutes, updates
        # Costs a copy of all states, with the action histories of environments in Python, after
        # every chunk.
        self.hold = hold
        self.held: tuple[int, Any] | None = None  # updates done, states
        self.rows: list[dict[str, np.ndarray]] = []
        self.written = partial.updates if partial else 0  # updates done at the last checkpoint
        self.env_steps = partial.metrics["env_steps"].sum(axis=1, dtype=np.int64) if partial else 0
        self.since = time.monotonic()
        self.digests: dict[str, str] = {}  # of the metrics, by file
        self.writer = ThreadPoolExecutor(1)
        self.pending: Future[None] | None = None
        if folder:
            files.make_folder(folder)
            forget_after(folder, self.written)

    def __call__(
        self,
        done: int,
        states: Callable[[], Any],
        metrics: dict[str, np.ndarray],
        last: bool,
    ) -> None:
        """Writes a checkpoint if it is due, and always at the last call. Raises OSError if the
        previous one failed.
        """
        self.rows = (
            [joined([*self.rows, metrics])] if len(self.rows) == MERGED else [*self.rows, metrics]
        )
        due = time.monotonic() - self.since >= 60 * self.minutes
        due |= self.updates is not None and done - self.written >= self.updates
        is_written = last or devices.agreed(int(due))
        self.held = None
        if is_written or self.hold:
            # copies: the devices' buffers are reused
            self.held = done, jax.tree.map(np.array, states())
        if is_written:
            self._submit_held()
        if last:
            self.wait()

    def write_held(self) -> None:
        """Writes the states after the last call, if they are held; for an error that ends training.

        Raises OSError if this, or the previous checkpoint, fails.
        """
        if self.held:
            self._submit_held()
        self.wait()

    def _submit_held(self) -> None:
        """Writes the held states in the background, with the metrics until then."""
        assert self.held
        done, states = self.held
        rows = joined(self.rows)
        self.wait()
        if self.folder:
            table = results.long_form(
                rows, first=self.written, before=self.env_steps, **self.columns
            )
            self.pending = self.writer.submit(
                self._write, self.folder, self.written, done, states, table
            )
        self.env_steps = self.env_steps + rows["env_steps"].sum(axis=1, dtype=np.int64)
        self.rows, self.written, self.since = [], done, time.monotonic()
        self.held = None

    def wait(self) -> None:
        """Waits for the write in progress. Raises OSError, with the path, if it failed."""
        pending, self.pending = self.pending, None
        if pending:
            pending.result()

    def _write(
        self, folder: Path, start: int, done: int, states: Any, table: Mapping[str, Any]
    ) -> None:
        tables.write_parquet(folder / f"metrics-{start:08}-{done:08}.parquet", table)
        self.digests = {
            path.name: self.digests.get(path.name) or _digest(path) for path in _parts(folder, done)
        }
        header = {"num_kept": len(next(iter(self.columns.values()))), "metrics": self.digests}
        save(folder, done, states, {**self.metadata, **header})
        for old in steps(folder)[self.max_to_keep :]:
            _remove(folder, old)


def save(folder: Path, done: int, states: Any, metadata: Mapping[str, Any]) -> None:
    """Writes the checkpoint after update `done`. states: numpy arrays [n, ...], as
    `execution.OnCheckpoint` gets them. Raises OSError, with the path.

    metadata: see `CheckpointWriter`; also num_kept, the number of runs that have metrics, and
    metrics, the digests of their files.
    """
    import safetensors.numpy

    header = {"format": FORMAT, "updates": done, **metadata}
    arrays = {name: np.ascontiguousarray(x) for name, x in named_leaves(states).items()}
    text = json.dumps(folders.jsonable(header), allow_nan=False)
    data = safetensors.numpy.save(arrays, metadata={"pg": text})
    place = folder / f"{done:08}.{hashlib.sha256(data).hexdigest()}.safetensors"
    files.replace(place, lambda file: file.write(data))
    _remove(folder, done, but=place)


def restore(
    folder: Path, template: TrainState, metadata: Mapping[str, Any], num_kept: int
) -> Restored | None:
    """The newest valid checkpoint; None if there is none.

    template: the state of one run, as `jax.eval_shape` returns it. metadata: see
    `CheckpointWriter`. num_kept: number of runs that have metrics.

    Raises ValueError for a checkpoint of other settings or another network, with the differences,
    and DamageError if all are corrupt.
    """
    files.check_folder(folder)
    files.remove_leftovers(folder)
    remarks = []
    for done in steps(folder):
        try:
            partial, versions = _read(folder, done, template, metadata, num_kept)
        except DamageError as error:
            remarks.append(f"{error}: falling back to the one before")
        else:
            changed = changes(versions, metadata["versions"])
            return Restored(partial, remarks, changed, versions.get("resumed", []))
    if remarks:
        raise DamageError(
            f"{remarks[-1].partition(': falling')[0]}, and there is none before it: remove {folder}"
        )
    return None


def shared(found: Restored | None, template: TrainState, num_kept: int) -> PartialRun | None:
    """The runs that the first process of a job has restored, in all of them.

    Args:
        found: the result of `restore` in the first process; elsewhere None.
        template: see `restore`.
        num_kept: see `restore`.
    """
    if jax.process_count() == 1:
        return found.partial if found else None
    if not (updates := devices.agreed(found.partial.updates if found else 0)):
        return None
    num_runs = devices.agreed(len(found.partial.states.update) if found else 0)
    has_best = devices.agreed(int(found is not None and found.partial.best is not None))
    trees = (template, periodic.best_template(template) if has_best else None)
    if found:
        trees, metrics = (found.partial.states, found.partial.best), found.partial.metrics
    else:
        trees = jax.tree.map(lambda x: np.zeros((num_runs, *x.shape), x.dtype), trees)
        metrics = {"env_steps": np.zeros((num_kept, updates), np.int32)}
    states, best = devices.shared(trees)
    return PartialRun(states, metrics, best)


def steps(folder: Path) -> list[int]:
    """The updates that have a checkpoint, the last one first."""
    return sorted({_update(path) for path in _checkpoints(folder)}, reverse=True)


def forget_after(folder: Path, done: int) -> None:
    """Removes everything after update `done`, which is about to be written again."""
    for step in steps(folder):
        if step > done:
            _remove(folder, step)
    for path in _parts(folder):
        if _span(path)[1] > done:
            path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Removes all checkpoints and metrics of a folder, and the folder if nothing else is in it."""
    for pattern in (_CHECKPOINT, results.METRICS_PART):
        files.remove(folder, pattern)
    files.remove_leftovers(folder)
    files.remove_if_empty(folder)


def read_metrics(
    folder: Path, done: int | None = None, num_kept: int | None = None
) -> dict[str, np.ndarray]:
    """The rows of updates before `done` (None: of all), part by part.

    num_kept: rows of an update, if known. Raises ValueError if some are corrupt, or have more rows.
    """
    parts = []
    for path in _parts(folder, done):
        start, end = _span(path)
        most = None if num_kept is None else num_kept * (end - start)
        parts.append(tables.read_parquet(path, most_rows=most))
    if not parts:
        return {}
    parts = results.completed(parts)
    if any(set(part) != set(parts[0]) for part in parts):
        raise DamageError(f"the metrics in {folder} do not have the same columns in all files")
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read(
    folder: Path, done: int, template: TrainState, metadata: Mapping[str, Any], num_kept: int
) -> tuple[PartialRun, Mapping[str, Any]]:
    """A checkpoint and the versions it was made with, if it is valid and belongs to this run."""
    import safetensors

    leaves = named_leaves(template)
    of_best = named_leaves({"best": periodic.best_template(template)})
    one_run = sum(x.size * x.dtype.itemsize for x in (leaves | of_best).values())
    path = _whole(folder, done, (num_kept + _FILLED) * one_run + _HEADER)
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = _header(path, file.metadata()["pg"])
            _check_header(path, header, metadata, num_kept, done)
            stored_as = _names(file.keys(), header["format"])
            slices = {name: file.get_slice(stored) for name, stored in stored_as.items()}
            if any(name.startswith(_BEST) for name in slices):
                leaves |= of_best
            new = [name for name in leaves if name not in slices and is_added(name)]
            stored = {name: leaf for name, leaf in leaves.items() if name not in new}
            _check_leaves(path, slices, stored, num_kept)
            runs = tuple(slices["update"].get_shape())
            arrays = {}
            for name, leaf in leaves.items():
                is_new = name in new
                arrays[name] = (
                    added(name, leaf, runs) if is_new else file.get_tensor(stored_as[name])
                )
        _check_metrics(folder, header["metrics"], done)
        metrics = _joined(_rows(folder, done, num_kept), num_kept, done)
    except (*_MISLEADING, safetensors.SafetensorError) as error:
        if getattr(error, "errno", None) is not None:  # from the system: the file may be valid
            raise files.UnreadableError(f"{path} cannot be read now: {error}") from None
        raise DamageError(f"{path} is corrupt") from None
    states, best = _in_trees(arrays, template)
    return PartialRun(states, metrics, best), header["versions"]


def _in_trees(
    arrays: Mapping[str, np.ndarray], template: TrainState
) -> tuple[TrainState, periodic.Best | None]:
    """The states of a checkpoint, and the best parameters if it has them."""
    of_states = [x for name, x in arrays.items() if not name.startswith(_BEST)]
    of_best = [x for name, x in arrays.items() if name.startswith(_BEST)]
    states: TrainState = jax.tree.unflatten(jax.tree.structure(template), of_states)
    if not of_best:
        return states, None
    structure = jax.tree.structure(periodic.best_template(template))
    best: periodic.Best = jax.tree.unflatten(structure, of_best)
    return states, best


def _header(path: Path, text: str) -> dict[str, Any]:
    """The header of a checkpoint; only the format number if that is another."""
    try:
        header: dict[str, Any] = folders.parse_json(text, path, {"format": int})
    except ValueError as error:
        raise DamageError(str(error)) from None
    if header["format"] in READABLE and (found := misfit(header, HEADER)):
        raise DamageError(f"{path} is corrupt: {found}")
    return header


def _rows(folder: Path, done: int, num_kept: int) -> dict[str, np.ndarray]:
    """`read_metrics`, with a DamageError for a corrupt file, so that the checkpoint before is
    tried.
    """
    try:
        return read_metrics(folder, done, num_kept)
    except files.UnreadableError:  # it may be valid, and corrupt files may be removed
        raise
    except ValueError as error:
        raise DamageError(str(error)) from None


def _whole(folder: Path, done: int, most: int) -> Path:
    """The file of a checkpoint, after verifying its digest. most: bytes it can have."""
    (path, *others) = [path for path in _checkpoints(folder) if _update(path) == done]
    info = path.lstat()
    if others or not stat.S_ISREG(info.st_mode) or info.st_size > most:
        raise DamageError(f"{path} is not a checkpoint of this run")
    if _digest(path) != path.name.split(".")[1]:
        raise DamageError(f"{path} is corrupt")
    return path


def _with_defaults(stored: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings, with the default of each newer field.

    Args:
        stored: Under their current names.
        current: Those of the current run, which has all fields.
    """
    whole = dict(stored)
    for part, values in folders.jsonable(folders.default_settings()).items():
        if isinstance(stored.get(part), Mapping):
            newer = set(current[part]) & set(values) - set(stored[part])
            whole[part] = {**stored[part], **{name: values[name] for name in newer}}
    return whole


def _without_code(setup: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without the digests of custom parts, which those of sweeps have."""
    return {name: value for name, value in setup.items() if name != "parts"}


def _check_header(
    path: Path, header: Mapping[str, Any], metadata: Mapping[str, Any], num_kept: int, done: int
) -> None:
    """Raises ValueError unless a checkpoint has this format, these settings, and this update. The
    code of custom parts is not compared here but with the records of the folder.
    """
    if header["format"] not in READABLE:
        raise ValueError(
            f"{path} has format {header['format']}, and this pg reads formats up to {FORMAT}: "
            f"continue with pg {_version(header)}, or restart"
        )
    current = _without_code(folders.jsonable(metadata["setup"]))
    before = _with_defaults(_without_code(migrated(header["setup"])), current)
    if differences := folders.differing(before, current):
        raise ValueError(f"{path} is of another run: {'; '.join(differences)}")
    if (header["num_kept"], header["updates"]) != (num_kept, done):
        raise DamageError(f"{path} is corrupt")


def _version(header: Mapping[str, Any]) -> str:
    """The version of pg that wrote it, according to the header."""
    versions = header.get("versions")
    return shown(versions.get("pg")).strip("'") if isinstance(versions, dict) else "of that time"


def _check_leaves(
    path: Path, slices: Mapping[str, Any], template: Mapping[str, Any], num_kept: int
) -> None:
    """Raises ValueError unless the arrays of a checkpoint are those of `template`, with a leading
    axis of runs; no array is read.
    """
    if odd := sorted(set(slices) ^ set(template)):
        where = "only in it" if odd[0] in slices else "only in this run"
        raise ValueError(
            f"{path} is of another network, optimizer or environment: {odd[0]} is {where}"
        )
    num_runs = slices["update"].get_shape()[0]
    if not num_kept <= num_runs < num_kept + _FILLED:
        raise DamageError(f"{path} is corrupt")
    for name, x in template.items():
        parameters.check_precision(path, slices[name].get_dtype(), x)
        stored = parameters.described(slices[name].get_dtype(), slices[name].get_shape())
        wanted = parameters.described(parameters.stored_type(x.dtype), (num_runs, *x.shape))
        if stored != wanted:
            raise ValueError(
                f"{path} is of another network: {name} is {stored} in it and {wanted} in this run"
            )


def _check_metrics(folder: Path, wanted: Mapping[str, str], done: int) -> None:
    """Raises DamageError unless the metrics before a checkpoint are complete and unchanged; file
    names that only the header has are not opened.
    """
    parts = {path.name: path for path in _parts(folder, done)}
    if odd := sorted(set(wanted) ^ set(parts)):
        raise DamageError(f"{folder / Path(odd[0]).name} is missing, or does not belong to the run")
    for name, path in parts.items():
        if _digest(path) != wanted[name]:
            raise DamageError(f"{path} is corrupt")


def changes(stored: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The differences between two `folders.environment` that bits can depend on, in words.

    stored: as it was recorded; for an older release, which may have recorded less, that is added.
    """
    names = [name for name in SOFTWARE if name in stored]
    found = folders.differing(
        {name: stored[name] for name in names}, {name: current.get(name) for name in names}
    )
    if missing := [name for name in SOFTWARE if name in current and name not in stored]:
        found.append(f"the stored run has no record of {', '.join(missing)}")
    return found


def _joined(rows: Mapping[str, np.ndarray], num_runs: int, done: int) -> dict[str, np.ndarray]:
    """Metrics [n, done] from rows, in whose parts the runs follow one another."""
    if len(rows["update"]) != num_runs * done:
        raise DamageError("the metrics lack updates, or have some twice")
    try:
        return results.by_run(rows, num_runs)
    except ValueError as error:
        raise DamageError(str(error)) from None


def _parts(folder: Path, done: int | None = None) -> list[Path]:
    """The files of metrics before update `done`, in order."""
    named = files.named(folder, results.METRICS_PART)
    return sorted((path for path in named if done is None or _span(path)[1] <= done), key=_span)


def _span(path: Path) -> tuple[int, int]:
    """The updates of a file of metrics."""
    _, start, end = path.stem.split("-")
    return int(start), int(end)


def _checkpoints(folder: Path) -> list[Path]:
    """The paths that are named like a checkpoint, which need not be plain files."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if re.fullmatch(_CHECKPOINT, path.name)]


def _update(path: Path) -> int:
    """The update after which a checkpoint was written."""
    return int(path.name.partition(".")[0])


def _remove(folder: Path, done: int, but: Path | None = None) -> None:
    for path in files.named(folder, _CHECKPOINT):
        if _update(path) == done and path != but:
            path.unlink(missing_ok=True)


def _names(stored: Iterable[str], written_as: int) -> dict[str, str]:
    """The stored name of each array, by its current name."""
    return {leaf_name(name) if written_as == 1 else name: name for name in stored}


def _digest(path: Path) -> str:
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
