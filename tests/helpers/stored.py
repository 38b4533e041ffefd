"""Folders of runs and of sweeps as the commands leave them, of given scores, without training."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.config import Config, Hyperparams
from pg.evaluation import Evaluation
from pg.runs import folders, results

STEPS = 100  # environment steps of an update
UPDATES = 5


def metrics_of(scores: Sequence[float], updates: int = UPDATES) -> dict[str, np.ndarray]:
    """Metrics of seeds whose returns rise from 0 to their scores; NaN: it diverged at the end."""
    ends = np.nan_to_num(np.asarray(scores, float), nan=1.0)
    shape = (len(ends), updates)
    failed = np.zeros(shape, np.int32)
    failed[np.isnan(scores), -1] = 1
    return {
        "return": (ends[:, None] * np.linspace(0, 1, updates)).astype(np.float32),
        "env_steps": np.full(shape, STEPS, np.int32),
        "episodes": np.ones(shape, np.int32),
        "nonfinite": failed,
        "skipped": failed,
    }


def store_run(
    folder: Path,
    scores: Sequence[float],
    *,
    first_seed: int = 0,
    hyperparams: Mapping[str, Any] | None = None,
    greedy: Sequence[float] | None = None,
    status: str = "finished",
    **config: Any,
) -> Path:
    """A run of one score per seed; NaN of a seed that diverged.

    greedy: scores of a second evaluation. status: "interrupted" of a run that has no scores yet.
    """
    seeds = range(first_seed, first_seed + len(scores))
    settings = Config(**{"num_updates": UPDATES, "preset": None, **config})
    options = {"seed": first_seed, "seeds": len(seeds), "greedy": False}
    folder.mkdir(parents=True)
    folders.write_setup(folder, settings, Hyperparams(**(hyperparams or {})), options, {"pg": "0"})
    metrics = metrics_of(scores, settings.num_updates)
    results.write_metrics(folder, metrics, seeds)
    rows: list[dict[str, Any]] = [{"seed": seed} for seed in seeds]
    if status != "interrupted":
        for i, row in enumerate(rows):
            row["mean"] = scores[i]
            if greedy is not None:
                row["greedy"] = {"mean": greedy[i]}
    summary = {"status": status, "num_updates": settings.num_updates, "per_seed": rows}
    actions = {} if status == "interrupted" else {"actions": "sampled"}
    folders.write_json(folder / "summary.json", {**summary, **actions})
    return folder


def store_sweep(folder: Path, table: Mapping[str, list[Any]], scores: np.ndarray) -> Path:
    """A finished sweep. table: see `SweepSpec`; scores: [configurations, seeds]."""
    from pg.sweep import SweepSpec, spec
    from pg.sweep.chunks import Chunk

    seeds = range(scores.shape[1])
    config = Config(num_updates=UPDATES, preset=None)
    one = SweepSpec(config, Hyperparams(), dict(table), seeds, episodes=1)
    spec.make(folder)
    spec.write_setup(one, folder, 2, {})
    returns = scores.reshape(-1, 1)
    evaluation: Any = {"sampled": Evaluation(returns, returns)}
    spec.write_chunk(one, folder, 0, Chunk(0, None, metrics_of(returns[:, 0]), evaluation))
    return folder
