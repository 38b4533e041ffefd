"""A run's folder: what was run, what came of it, and the way back.

    config.json         Config and Hyperparams           versions.json   software, device, git commit
    metrics.parquet     one row per seed and update      summary.json    final evaluation, per seed and over seeds
    params.safetensors  final parameters, no pickle      curve.png, curve.svg

Every file is written beside its place and renamed into it, so that a reader finds it whole or not at all.
"""

import datetime
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pg.config import Config, Hyperparams
from pg.evaluate import Evaluation
from pg.runs import Run

_NORMALISER = "normaliser/"  # what running statistics are stored under
POINTS = 100  # of a curve that is drawn or kept
PACKAGES = ("pg", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")


def create_folder(out: Path, config: Config, seed: int) -> Path:
    """A new folder `out`/ENV/ESTIMATOR/DATE-seedN. Raises ValueError where none can be made."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parent = parent_folder(out, config)
    for attempt in range(100):
        folder = parent / (f"{stamp}-seed{seed}" + (f"-{attempt}" if attempt else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise ValueError(f"cannot make a folder for the run in {out}: a file is in the way") from None
        except OSError as error:
            raise ValueError(f"cannot make a folder for the run in {out}: {error.strerror}") from None
        else:
            return folder
    raise ValueError(f"cannot make a folder for the run in {parent}")


def parent_folder(out: Path, config: Config) -> Path:
    """`out`/ENV/ESTIMATOR, absolute."""
    name = re.sub(r"[^\w.-]", "-", str(config.to_json()["env"]))  # "brax:ant" is no name for a folder everywhere
    return Path(out).expanduser().resolve() / name / config.estimator


def write_setup(folder: Path, config: Config, hyperparams: Hyperparams, options: Mapping[str, Any]) -> None:
    """config.json and versions.json: all that it takes to run it again."""
    setup = {"config": config.to_json(), "hyperparams": hyperparams.scalars(), "options": dict(options)}
    write_json(folder / "config.json", setup)
    write_json(folder / "versions.json", environment())


def read_setup(folder: Path) -> tuple[Config, Hyperparams]:
    """Config and Hyperparams of the run in a folder."""
    return stored_settings(json.loads((folder / "config.json").read_text()))


def stored_settings(data: Mapping[str, Any]) -> tuple[Config, Hyperparams]:
    """Config and Hyperparams from the entries `config` and `hyperparams` of what `write_json` wrote."""
    scalars = data["hyperparams"].items()
    values: dict[str, Any] = {name: float(v) if isinstance(v, str) else v for name, v in scalars}  # "inf"
    return Config.from_json(data["config"]), Hyperparams(**values)


def environment() -> dict[str, Any]:
    """Versions, device and git commit of this process."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES if _installed(name)},
        "device": jax.devices()[0].device_kind,
        "backend": jax.default_backend(),
        "num_devices": jax.device_count(),
        "platform": platform.platform(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
    }


def summarise(run: Run, evaluation: Evaluation | None, seeds: Sequence[int], *, greedy: bool) -> dict[str, Any]:
    """What summary.json says: the final evaluation over all seeds and for each, steps, and seconds.

    With one seed, standard_error is over episodes; with several, of the mean over seeds.
    """
    steps = run.metrics["env_steps"].sum(axis=1, dtype=np.int64)
    finite = [bool(np.isfinite(run.metrics["grad_norm"][i]).all()) for i in range(len(seeds))]
    per_seed = [{"seed": seed, "env_steps": int(steps[i]), "finite": finite[i]} for i, seed in enumerate(seeds)]
    summary: dict[str, Any] = {
        "status": "finished" if run.finished else "interrupted",
        "num_updates": run.metrics["env_steps"].shape[1],
        "env_steps": int(steps.sum()),
        "compile_seconds": run.compile_seconds,
        "train_seconds": run.train_seconds,
    }
    if evaluation is None:
        return summary | {"per_seed": per_seed}
    parts = [Evaluation(*(x[i] for x in evaluation)).summary() for i in range(len(seeds))]
    means = np.array([part["mean"] for part in parts])
    total = (
        dict(parts[0])
        if len(seeds) == 1
        else {
            "mean": means.mean(),
            "standard_error": means.std(ddof=1) / len(seeds) ** 0.5,
            "median_of_seeds": np.median(means),
            "min": evaluation.returns.min(),
            "max": evaluation.returns.max(),
            "episodes": parts[0]["episodes"] * len(seeds),
        }
    )
    actions = "greedy" if greedy else "sampled"
    return (
        total | {"actions": actions} | summary | {"per_seed": [a | b for a, b in zip(per_seed, parts, strict=True)]}
    )


def write_metrics(folder: Path, metrics: Mapping[str, np.ndarray], first_seed: int) -> None:
    """metrics.parquet, long form: seed, update, total_env_steps, then one column per metric.

    metrics: arrays [num_seeds, num_updates].
    """
    seeds = np.arange(first_seed, first_seed + len(metrics["env_steps"]))
    write_table(folder / "metrics.parquet", long_form(metrics, seed=seeds))


def long_form(metrics: Mapping[str, np.ndarray], **runs: np.ndarray) -> dict[str, np.ndarray]:
    """Columns with a row per run and update: what the runs are, [n] each, then metrics [n, num_updates]."""
    num_runs, num_updates = metrics["env_steps"].shape
    return {
        **{name: np.repeat(values, num_updates) for name, values in runs.items()},
        "update": np.tile(np.arange(num_updates), num_runs),
        "total_env_steps": np.cumsum(metrics["env_steps"], axis=1, dtype=np.int64).ravel(),
        **{name: np.asarray(x).ravel() for name, x in metrics.items()},
    }


def read_metrics(folder: Path) -> dict[str, np.ndarray]:
    """The columns of metrics.parquet."""
    return read_table(folder / "metrics.parquet")


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """A parquet file of columns of one length."""
    import pyarrow
    import pyarrow.parquet as parquet

    replace(path, lambda temporary: parquet.write_table(pyarrow.table(dict(columns)), temporary))


def read_table(path: Path, columns: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """The columns of a parquet file, all unless some are named. Raises ValueError for a damaged file."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, columns=None if columns is None else list(columns))
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path} is damaged, remove it: {error}") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def curve(metrics: Mapping[str, np.ndarray], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Learning curves of at most `points` points: environment steps so far [S, K], and the mean return of the
    episodes that ended since the point before [S, K], NaN where none did.

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


def aligned(curves: Sequence[tuple[np.ndarray, np.ndarray]], points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Curves (steps, values), read off at the same steps: steps [points], which all curves have, and [N, points]."""
    grid = np.linspace(max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves), points)
    return grid, np.stack([np.interp(grid, x, y) for x, y in curves])


def write_params(folder: Path, params: Any, normaliser: Any = ()) -> None:
    """params.safetensors: each leaf under its path in the tree, as `policy/params/torso/Dense_0/kernel`.

    normaliser: `state.normaliser`, which a policy that sees standardised observations needs; under `normaliser/`.
    """
    import safetensors.numpy

    trees = (("", params), (_NORMALISER, normaliser))
    leaves = {start + _path(path): leaf for start, tree in trees for path, leaf in jax.tree.leaves_with_path(tree)}
    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in leaves.items()}
    replace(folder / "params.safetensors", lambda path: safetensors.numpy.save_file(arrays, path))


def read_params(folder: Path, like: Any) -> Any:
    """The parameters of a run, in the tree of `like` (arrays or `jax.eval_shape`'s).

    Raises ValueError naming the leaf where file and tree differ. With several seeds every leaf has a first axis.
    """
    leaves = _read_leaves(folder)
    return _restored(folder, {n: x for n, x in leaves.items() if not n.startswith(_NORMALISER)}, like)


def read_normaliser(folder: Path, like: Any) -> Any:
    """The running statistics of a run, in the tree of `like`, as `read_params` reads the parameters."""
    leaves, skip = _read_leaves(folder), len(_NORMALISER)
    return _restored(folder, {n[skip:]: x for n, x in leaves.items() if n.startswith(_NORMALISER)}, like)


def _read_leaves(folder: Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    return safetensors.numpy.load_file(folder / "params.safetensors")


def _restored(folder: Path, leaves: Mapping[str, np.ndarray], like: Any) -> Any:
    wanted = {_path(path): leaf for path, leaf in jax.tree.leaves_with_path(like)}
    if odd := sorted(set(wanted) ^ set(leaves)):
        raise ValueError(f"{folder} holds the parameters of another network: {', '.join(odd)}")
    for name, leaf in sorted(wanted.items(), reverse=True):
        found = leaves[name]
        if found.shape[found.ndim - leaf.ndim :] != leaf.shape or found.dtype != leaf.dtype:
            shape = f"{found.dtype}{list(found.shape)}"
            raise ValueError(f"{folder}: {name} is {shape}, where {leaf.dtype}{list(leaf.shape)} was expected")
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(leaves[name]) for name in wanted])


def write_json(path: Path, data: Any) -> None:
    """Strict JSON: what is not finite is written as a string ("inf") or, where it stands for "none", null."""
    text = json.dumps(jsonable(data), indent=2, allow_nan=False) + "\n"
    replace(path, lambda temporary: temporary.write_text(text))


def jsonable(data: Any) -> Any:
    """What strict JSON can hold of it."""
    if isinstance(data, Mapping):
        return {str(name): jsonable(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [jsonable(value) for value in data]
    if isinstance(data, jax.Array | np.ndarray | np.generic):
        return jsonable(data.tolist())
    if isinstance(data, float) and not math.isfinite(data):
        return None if math.isnan(data) else str(data)
    return str(data) if isinstance(data, Path) else data


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` make a file beside `path`, and renames it into its place."""
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary)
    os.replace(temporary, path)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:
        return False


def _git(*arguments: str) -> str | None:
    """What git says of the checkout this file lies in; None outside one."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
