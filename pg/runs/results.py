"""What came of a run, in its folder, and the way back.

metrics.parquet     a row per seed and update     summary.json   evaluation, by seed and over seeds
params.safetensors  final parameters, no pickle      curve.png, curve.svg
"""

import csv
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pg import nonfinite
from pg.evaluate import Evaluation
from pg.inputs import count, shown
from pg.runs import files, folders, memory
from pg.runs.execution import Run
from pg.runs.migrations import added, is_added

METRICS_PART = r"metrics-\d{8,}-\d{8,}\.parquet"  # the names of metrics that checkpoints keep
_CELL = 8  # bytes of a number
# bytes of a value in a parquet file before it was packed, on average, texts included
_LONGEST_CELL = 256
_CELLS_BESIDE = 1000  # as many values' bytes are beside them: heads of pages, dictionaries
Line = TypeVar("Line", bound=Any)  # a NamedTuple
_NORMALISER = "normaliser/"  # what running statistics are stored under
POINTS = 100  # of a curve that is drawn or kept


def summarise(
    run: Run, evaluation: Evaluation | None, seeds: Sequence[int], *, greedy: bool
) -> dict[str, Any]:
    """What summary.json says: the final evaluation over all seeds and for each, steps, and seconds.

    With one seed, standard_error is over episodes; with several, of the mean over seeds. Seeds that
    ended at a number that was not finite are listed, and left out of what is over all seeds.
    """
    steps = run.metrics["env_steps"].sum(axis=1, dtype=np.int64)
    ended = nonfinite.failed(run.metrics)
    per_seed: list[dict[str, Any]] = [
        {"seed": seed, "env_steps": int(steps[i]), "finite": failure is None}
        | ({} if failure is None else {"not_finite_at": failure[0], "not_finite_in": failure[1]})
        for i, (seed, failure) in enumerate(
            zip(seeds, nonfinite.first_failures(run.metrics), strict=True)
        )
    ]
    summary: dict[str, Any] = {
        "status": "interrupted" if run.signum else "finished" if run.finished else "stopped",
        "num_updates": run.metrics["env_steps"].shape[1],
        "env_steps": int(steps.sum()),
        "failed_seeds": [seed for seed, one in zip(seeds, ended, strict=True) if one],
        "compile_seconds": run.compile_seconds,
        "train_seconds": run.train_seconds,
    }
    if evaluation is None:
        return summary | {"per_seed": per_seed}
    parts = [Evaluation(*(x[i] for x in evaluation)).summary() for i in range(len(seeds))]
    total = _over_seeds(parts, np.asarray(evaluation.returns), ~ended)
    actions = "greedy" if greedy else "sampled"
    return (
        total
        | {"actions": actions}
        | summary
        | {"per_seed": [a | b for a, b in zip(per_seed, parts, strict=True)]}
    )


def _over_seeds(
    parts: Sequence[Mapping[str, Any]], returns: np.ndarray, fine: np.ndarray
) -> dict[str, Any]:
    """The final evaluation over the seeds that are `fine` [S]; {} if none is. returns: [S,
    episodes].
    """
    if not fine.any():
        return {}
    if len(parts) == 1:
        return dict(parts[0])
    means = np.array([part["mean"] for part in parts])[fine]
    return {
        "mean": means.mean(),
        "standard_error": means.std(ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.nan,
        "median_of_seeds": np.median(means),
        "min": returns[fine].min(),
        "max": returns[fine].max(),
        "episodes": parts[0]["episodes"] * len(means),
    }


def failures(summary: Mapping[str, Any]) -> list[str]:
    """What to say of numbers that were not finite, a line per seed, the first few."""
    lines = [
        f"seed {one['seed']}: {one['not_finite_in']} not finite in update {one['not_finite_at']}"
        + (", where it stands still" if one["seed"] in summary["failed_seeds"] else "")
        for one in summary["per_seed"]
        if not one["finite"]
    ]
    if not lines:
        return []
    failed, seeds = len(summary["failed_seeds"]), len(summary["per_seed"])
    more = [f"... and {len(lines) - 5} more"] if len(lines) > 5 else []
    advice = (
        "a smaller learning rate may help; --debug names the operation, --on-nonfinite skip goes on"
    )
    return [*lines[:5], *more, f"{failed} of {seeds} seed(s) left out of the evaluation; {advice}"]


def write_metrics(folder: Path, metrics: Mapping[str, np.ndarray], first_seed: int) -> None:
    """metrics.parquet, long form: seed, update, total_env_steps, then one column per metric.

    metrics: arrays [num_seeds, num_updates].
    """
    seeds = np.arange(first_seed, first_seed + len(metrics["env_steps"]))
    write_table(folder / "metrics.parquet", long_form(metrics, seed=seeds))


def long_form(
    metrics: Mapping[str, np.ndarray], *, first: int = 0, before: Any = 0, **runs: np.ndarray
) -> dict[str, np.ndarray]:
    """Columns with a row per run and update: what the runs are, [n] each, then metrics [n,
    num_updates].

    first: number of the first update; before: environment steps until then, [n].
    """
    num_runs, num_updates = metrics["env_steps"].shape
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64) + np.reshape(before, (-1, 1))
    return {
        **{name: np.repeat(values, num_updates) for name, values in runs.items()},
        "update": np.tile(np.arange(first, first + num_updates), num_runs),
        "total_env_steps": steps.ravel(),
        **{name: np.asarray(x).ravel() for name, x in metrics.items()},
    }


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """The columns of metrics.parquet, or, of a run that has not ended, of what its checkpoints
    have.

    Raises ValueError where there are none, where a file is damaged, and where it has more rows than
    the run.
    """
    path, seeds = folder / "metrics.parquet", num_seeds(folder)
    most = None if seeds is None else seeds * _num_updates(folder)
    if os.path.lexists(path):
        return read_table(path, most_rows=most)
    parts = files.named(folder / "checkpoints", METRICS_PART)
    if not parts:
        raise ValueError(f"there are no metrics in {folder} yet")
    tables = [read_table(part, most_rows=most) for part in parts]
    if odd := [
        part for part, table in zip(parts, tables, strict=True) if set(table) != set(tables[0])
    ]:
        raise ValueError(
            f"{odd[0]} is damaged, remove it: it has other columns than {parts[0].name}"
        )
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """A parquet file of columns of one length."""
    import pyarrow
    import pyarrow.parquet as parquet

    files.replace(path, lambda file: parquet.write_table(pyarrow.table(dict(columns)), file))


def read_table(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    most_rows: int | None = None,
    texts: bool = False,
) -> dict[str, np.ndarray]:
    """The columns of a parquet file of numbers.

    Args:
        path: the file.
        columns: those that are wanted; default: all.
        most_rows: as many as there can be; default: any number that fits into memory.
        texts: columns may be of texts too.

    Raises:
        files.UnreadableError: memory or the disk does not let it be read at present; it may be
        sound. ValueError: the file is damaged, or, which is found before any column is read, would
        unpack to something else.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    with files.opened(path) as file:
        try:
            table = parquet.ParquetFile(file)
            if problem := _too_much(table, most_rows, texts=texts):
                raise ValueError(problem)
            _check_room(table)
            odd = sorted(set(columns or ()) - set(table.schema_arrow.names))
            if odd:
                raise ValueError(f"it has no column {odd[0]}")
            words = [field.name for field in table.schema_arrow if _is_text(field.type)]
            # a long text that comes often stays one
            table = parquet.ParquetFile(file, read_dictionary=words)
            found = table.read(None if columns is None else list(columns), use_threads=False)
            return {name: _values(found[name]) for name in found.column_names}
        except (pyarrow.ArrowException, OSError, MemoryError, ValueError) as error:
            first = " ".join(str(error).split())
            # The system's own errors have a number; an OSError without one is arrow's word for
            # damage.
            if isinstance(error, MemoryError) or getattr(error, "errno", None) is not None:
                raise files.UnreadableError(f"{path} cannot be read now: {first}") from None
            raise ValueError(f"{path} is damaged, remove it: {first}") from None


def _too_much(table: Any, most_rows: int | None, *, texts: bool) -> str:
    """The reason not to read a parquet file, by its metadata; "" where there is none."""
    from pyarrow import types as kinds

    about, names = table.metadata, table.schema_arrow.names
    rows = [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    if about.num_rows != sum(rows) or min(rows, default=0) < 0:
        return "its parts do not add up"
    if len(set(names)) < len(names) or about.num_columns != len(names):
        return "its columns are not named once each"
    if most_rows is not None and about.num_rows > most_rows:
        return f"it has {about.num_rows:,} rows, where at most {most_rows:,} can have been written"
    plain: list[Callable[[Any], bool]] = [kinds.is_integer, kinds.is_floating, kinds.is_boolean]
    plain += [_is_text] if texts else []
    for name, kind in zip(names, table.schema_arrow.types, strict=True):
        if not any(is_plain(kind) for is_plain in plain):
            return f"its column {shown(name)} is of type {shown(str(kind))}"
    packed = _num_bytes(about)
    if packed < 0:
        return "its size is negative"
    if packed > _LONGEST_CELL * (about.num_rows + _CELLS_BESIDE) * len(names):
        return (
            f"it would unpack to {memory.readable(packed)}, for {about.num_rows:,} rows of "
            f"{len(names)} columns"
        )
    return ""


def _check_room(table: Any) -> None:
    """Raises MemoryError for a parquet file that may be sound, and is larger than the memory that
    is free now.
    """
    about = table.metadata
    size = max(_num_bytes(about), _CELL * about.num_rows * about.num_columns)
    if size > (free := memory.free()):
        raise MemoryError(
            f"it would unpack to {memory.readable(size)}, where {memory.readable(free)} are free"
        )


def _num_bytes(about: Any) -> int:
    """Bytes of a parquet file's values before they were packed, by its metadata."""
    return sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups))


def _is_text(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _values(column: Any) -> np.ndarray:
    """A column of arrow's, each text once in memory however often it comes."""
    import pyarrow

    if not pyarrow.types.is_dictionary(column.type):
        return column.to_numpy()
    parts = []
    for part in column.chunks:
        texts = np.array([*part.dictionary.to_pylist(), None], object)
        parts.append(texts[part.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)])
    return np.concatenate(parts) if parts else np.array([], object)


def write_csv(path: Path, columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """A table as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *lines])
    files.replace(path, lambda file: file.write(text.getvalue().encode()))


def read_csv(path: Path, kind: type[Line]) -> list[Line]:
    """The lines of a table, each a `kind`: a NamedTuple of texts, whole numbers and floats, by the
    columns' names.

    Raises ValueError for a file that cannot be read, or is another table.
    """
    columns, types = kind._fields, list(kind.__annotations__.values())
    text = files.read_bytes(path)
    try:
        header, *rows = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
        if tuple(header) != columns:
            raise ValueError
        return [kind(*(_cell(t, x) for t, x in zip(types, row, strict=True))) for row in rows]
    except (csv.Error, ValueError):
        expected = ", ".join(columns)
        raise ValueError(
            f"{path} must have the columns {expected}: it is not a table of results"
        ) from None


def _cell(kind: type, text: str) -> Any:
    """A cell as it was written. Raises ValueError for something else."""
    if kind is int and (len(text) > 20 or abs(int(text)) >= 2**63):
        raise ValueError(text)
    return kind(text)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, aligned to be read as it stands; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = [
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |"
        for row in rows
    ]
    return "\n".join([texts[0], f"| {' | '.join('-' * w for w in widths)} |", *texts[1:]])


def insert(path: Path, text: str, marks: tuple[str, str]) -> None:
    """Replaces what stands between the two marks of a file. Raises ValueError where they are not,
    once each.
    """
    check_marks(path, marks)
    before, rest = path.read_text(encoding="utf-8").split(marks[0])
    whole = "\n".join([before + marks[0], text, marks[1] + rest.split(marks[1])[1]])
    files.replace(path, lambda file: file.write(whole.encode()))


def check_marks(path: Path, marks: tuple[str, str]) -> None:
    """Raises ValueError unless a file has both marks, once each and in order."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if [text.count(mark) for mark in marks] != [1, 1] or text.index(marks[0]) > text.index(
        marks[1]
    ):
        raise ValueError(f"{path} needs one line {marks[0]} and below it one line {marks[1]}")


def curve(metrics: Mapping[str, np.ndarray], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Learning curves of at most `points` points: environment steps so far [S, K], and the mean
    return of the episodes that ended since the point before [S, K], NaN where none did.

    metrics: return, episodes and env_steps, [S, G].
    """
    num_updates = metrics["env_steps"].shape[1]
    ends = np.unique(np.linspace(0, num_updates, min(points, num_updates) + 1).astype(int)[1:])
    total = np.where(metrics["episodes"] > 0, metrics["return"] * metrics["episodes"], 0.0)
    summed, episodes = (
        np.diff(np.cumsum(x, axis=1, dtype=float)[:, ends - 1], axis=1, prepend=0.0)
        for x in (total, metrics["episodes"])
    )
    returns = np.where(episodes > 0, summed / np.maximum(episodes, 1.0), np.nan)
    steps = np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64)[:, ends - 1]
    return steps, returns.astype(np.float32)


def aligned(
    curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = POINTS
) -> tuple[np.ndarray, np.ndarray]:
    """Curves (steps, values), read off at the same steps: steps [points], which all curves have,
    and [N, points].

    Raises ValueError for curves that have no steps in common, or of which one has no points or
    other shapes.
    """
    points = count("points", points)
    for curve in curves:
        shapes = [np.shape(part) for part in curve] if isinstance(curve, tuple | list) else []
        if len(shapes) != 2 or len(shapes[0]) != 1 or shapes[0] != shapes[1]:
            got = f"arrays of shapes {shapes}" if shapes else shown(curve)
            raise ValueError(f"a curve must be a pair of steps [K] and values [K], got {got}")
    if not curves or not all(len(steps) for steps, _ in curves):
        raise ValueError(
            f"curves must have at least one point each, got {[len(steps) for steps, _ in curves]} "
            f"points"
        )
    begin, end = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if begin > end:
        raise ValueError(
            f"curves must have steps in common, and one begins at {begin}, where "
            f"another ended at {end}"
        )
    grid = np.linspace(begin, end, points)
    return grid, np.stack([np.interp(grid, steps, values) for steps, values in curves])


def gradient_quality(metrics: Mapping[str, np.ndarray], bins: int = 30) -> dict[str, np.ndarray]:
    """With `Config.diagnostics`, of stretches of training: env_steps (a seed's, so far),
    noise_scale (in episodes, or in environments of a window), signal_to_noise (of one),
    explained_variance (with a critic V); [bins] each.

    metrics: [seeds, updates]. Of each stretch numerators and denominators are averaged over seeds
    and updates before they are divided: a signal that is small is negative at times, and no ratio
    of one update means anything. Where noise hides the signal the noise scale is infinite; where
    every gradient is 0, as of rewards that are all equal, or nothing was measured, a ratio is NaN.
    """
    updates = metrics["env_steps"].shape[1]
    edges = np.unique(np.linspace(0, updates, bins + 1).astype(int))

    def binned(x: np.ndarray) -> np.ndarray:
        stretches = [x[:, begin:end] for begin, end in itertools.pairwise(edges)]
        return np.array(
            [np.nan if np.isnan(part).all() else np.nanmean(part) for part in stretches]
        )

    noise, signal = binned(metrics["grad_variance"]), binned(metrics["grad_squared_norm"])
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is NaN, as it should be
        ratio, inverse = noise / signal, signal / noise
    hidden = (signal <= 0) & (noise > 0)
    found = {
        "env_steps": np.cumsum(metrics["env_steps"], axis=1).mean(axis=0)[edges[1:] - 1],
        "noise_scale": np.where(hidden, np.inf, ratio),
        "signal_to_noise": inverse,
    }
    if "explained_variance" in metrics:
        found["explained_variance"] = binned(metrics["explained_variance"])
    return found


def write_params(folder: Path, params: Any, normaliser: Any = ()) -> None:
    """params.safetensors: each leaf under its path in the tree, as
    `policy/params/torso/Dense_0/kernel`.

    normaliser: `state.normaliser`, which a policy that sees standardised observations needs; under
    `normaliser/`.
    """
    import safetensors.numpy

    data = safetensors.numpy.save(leaves(params, normaliser))
    files.replace(folder / "params.safetensors", lambda file: file.write(data))


def leaves(params: Any, normaliser: Any = ()) -> dict[str, np.ndarray]:
    """What `write_params` writes, by name."""
    return {name: np.ascontiguousarray(leaf) for name, leaf in _named(params, normaliser).items()}


def read_params(folder: Path, like: Any) -> Any:
    """The parameters of a run, in the tree of `like` (arrays or `jax.eval_shape`'s).

    With several seeds every leaf has a first axis. Raises ValueError naming the leaf where file and
    tree differ, and where observations were standardised: such parameters act otherwise without the
    statistics.
    """
    return _in_tree(read_leaves(folder, like), like)


def read_state(folder: Path, params: Any, normaliser: Any) -> tuple[Any, Any]:
    """Parameters and running statistics of a run, in these trees, as `read_params` reads the
    parameters alone.
    """
    found = read_leaves(folder, params, normaliser)
    statistics = {name: found.pop(name) for name in list(found) if name.startswith(_NORMALISER)}
    return _in_tree(found, params), _in_tree(statistics, normaliser)


def read_leaves(folder: Path, like: Any, normaliser: Any = None) -> dict[str, np.ndarray]:
    """The arrays of params.safetensors, by name.

    Args:
        folder: that of the run.
        like: the tree of the parameters, as of `read_params`.
        normaliser: that of the running statistics; None: they are not wanted, and observations not
            standardised.

    Raises:
        ValueError: the file is missing or damaged, or has other arrays, which is found before one
        is read.
    """
    import safetensors

    path, most = folder / "params.safetensors", num_seeds(folder)
    wanted = _named(like, () if normaliser is None else normaliser)
    with files.opened(path):
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if normaliser is None:
                _check_alone(folder, names)
                names = [name for name in names if not name.startswith(_NORMALISER)]
            new = [name for name in wanted if name not in names and is_added(name)]
            if odd := sorted(set(wanted) ^ {*names, *new}):
                raise ValueError(
                    f"{folder} holds the parameters of another network: {', '.join(odd[:5])}"
                )
            runs: tuple[int, ...] = ()
            for name, leaf in sorted(wanted.items(), reverse=True):
                if name in new:
                    continue
                part = file.get_slice(name)
                check_precision(path, part.get_dtype(), leaf)
                _check_leaf(f"{folder}: {name}", part.get_dtype(), part.get_shape(), leaf, most)
                runs = tuple(part.get_shape()[: len(part.get_shape()) - leaf.ndim])
            return {
                name: added(name, leaf, runs) if name in new else file.get_tensor(name)
                for name, leaf in wanted.items()
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is missing or damaged: {str(error).splitlines()[0]}") from None


def num_seeds(folder: Path) -> int | None:
    """The seeds of the run in a folder, by its config.json; None where there is none."""
    if not os.path.lexists(folder / "config.json"):
        return None
    return int(folders.read_options(folder).get("seeds", 1))


def _num_updates(folder: Path) -> int:
    """The updates that the run in a folder has at most; an environment object need not be known for
    it.
    """
    data = folders.read_json(
        folder / "config.json", {**folders.SETUP, "config": {"num_updates": int}}
    )
    return int(data["config"]["num_updates"])


def stored_type(dtype: Any) -> str:
    """The name that safetensors has for a type."""
    names = {"bool": "BOOL", "bfloat16": "BF16"}
    return names.get(str(dtype), f"{dtype.kind.upper()}{8 * dtype.itemsize}")


def described(kind: str, shape: Sequence[int]) -> str:
    """An array by its type, as safetensors has it, and its shape."""
    return f"{kind}[{','.join(map(str, shape))}]"


def check_precision(place: object, kind: str, like: Any) -> None:
    """Raises ValueError for numbers of 32 bits where 64 are expected, or the other way round: a
    setting of jax.

    Args:
        place: where the array stands, for what is said.
        kind: its type, as safetensors has it.
        like: an array of the expected type.
    """
    expected = stored_type(like.dtype)
    if kind[:1] == expected[:1] and {kind[1:], expected[1:]} == {"32", "64"}:
        there = int(kind.endswith("64"))
        raise ValueError(
            f"{place} holds numbers of {kind[1:]} bits, as it was written with "
            f"JAX_ENABLE_X64={there}, and here they have {expected[1:]}: set JAX_ENABLE_X64={there}"
        )


def _check_leaf(name: str, kind: str, shape: Sequence[int], like: Any, most: int | None) -> None:
    """Raises ValueError unless an array is that of `like`, or has so many seeds in front."""
    seeds = list(shape[: len(shape) - like.ndim])
    fits = kind == stored_type(like.dtype) and list(shape[len(seeds) :]) == list(like.shape)
    if (
        not fits
        or len(shape) < like.ndim
        or len(seeds) > 1
        or (most is not None and seeds not in ([], [most]))
    ):
        expected = described(stored_type(like.dtype), like.shape)
        first = "" if most is None else f", with {most} seed(s) in front,"
        raise ValueError(
            f"{name} is {described(kind, shape)}, where {expected}{first} was expected"
        )
    if like.dtype.itemsize * math.prod(shape) > memory.free():
        raise ValueError(f"{name} is {described(kind, shape)}, more than fits into memory")


def _check_alone(folder: Path, names: Sequence[str]) -> None:
    """Raises ValueError unless the parameters act without running statistics. names: of all arrays
    beside them.
    """
    if any(name.startswith(f"{_NORMALISER}obs/") for name in names):
        raise ValueError(
            f"the policy in {folder} sees standardised observations, and its parameters alone "
            "would act otherwise: write pg.load_policy(folder), which acts; "
            "pg.runs.results.read_state reads both"
        )


def _named(params: Any, normaliser: Any) -> dict[str, Any]:
    """Leaves by their path in the tree."""
    trees = (("", params), (_NORMALISER, normaliser))
    return {
        start + _path(path): leaf
        for start, tree in trees
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _in_tree(found: Mapping[str, np.ndarray], like: Any) -> Any:
    """Leaves in the order of a tree, as one."""
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(x) for x in found.values()])


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
