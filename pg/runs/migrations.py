"""Migrations of stored data with former names, so that old folders still load.

A setting whose name changes, and a new array, get a row here, and `tests/data` a folder that was
written before.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

RENAMED: dict[str, dict[str, str]] = {
    "config": {"action_law": "action_distribution", "memory": "rnn", "memory_size": "rnn_size"},
    "hyperparams": {"lambda_": "gae_lambda"},
}

# Names of settings that a sweep varies.
_VARIED = {**RENAMED["config"], **RENAMED["hyperparams"]}

# Arrays added to the training state since, with their initial values.
ADDED = {"normaliser/extremes/0": math.inf, "normaliser/extremes/1": -math.inf}
# The trees whose leaves are stored, in files of parameters.
_TREES = ("params", "normaliser")
# A step of a path in format 1 of checkpoints: .name, ['key'] or [0].
_STEP = re.compile(r"\.(\w+)|\['([^']*)'\]|\[(?:<flat index )?(\d+)>?\]")

# Renamed columns, of a sweep's tables and of the leaderboard's.
_LEADERBOARD = {"subject": "problem", "stage": "snapshot"}
COLUMNS: dict[str, dict[str, str]] = {
    "sweep": {**_VARIED, "setting": "configuration"},
    "quality.csv": {
        **_LEADERBOARD,
        "steps": "steps_per_episode",
        "seconds": "seconds_per_episode",
        "reference": "reference_cosine",
        **{f"half{end}": f"steps_for_0_5{end}" for end in ("", "_low", "_high")},
        **{f"most{end}": f"steps_for_0_9{end}" for end in ("", "_low", "_high")},
        "counted": "counted_episodes",
    },
    "cosines.csv": {**_LEADERBOARD, "low": "cosine_low", "high": "cosine_high"},
}

# Renamed files.
FILES = {"snapshots.json": "stages.json"}


def migrated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings under their current names.

    Args:
        settings: the entries `config` and `hyperparams`, and of a sweep `table`, as JSON; others
            are kept as they are.
    """
    new = dict(settings)
    for part, names in {**RENAMED, "table": _VARIED}.items():
        stored = settings.get(part)
        if isinstance(stored, Mapping):
            new[part] = {names.get(name, name): value for name, value in stored.items()}
    return new


def existing(path: Path) -> Path:
    """The path of a file, or of the one with its former name if only that exists."""
    former = path.with_name(FILES.get(path.name, path.name))
    return former if former.exists() and not path.exists() else path


def leaf_name(stored: str) -> str:
    """The current name of a stored array: its path in the training state.

    Checkpoints of format 1 wrote `.params.policy['params']['head']`, and files of parameters
    `policy/params/head`, for `params/policy/params/head`.
    """
    if stored.startswith((".", "[")):
        steps = _STEP.findall(stored)
        return "/".join(attribute or key or index for attribute, key, index in steps)
    return stored if stored.partition("/")[0] in _TREES else f"params/{stored}"


def is_added(name: str) -> bool:
    """True for an array that older files do not have; name: see `leaf_name`."""
    return name in ADDED


def added(name: str, leaf: Any, runs: tuple[int, ...]) -> np.ndarray:
    """The initial value of an array [*runs, ...] that an older file does not have.

    Args:
        name: of the array, for which `is_added` is true.
        leaf: shape and type of the array of one run.
        runs: the axes of the runs in the file.
    """
    return np.full((*runs, *leaf.shape), ADDED[name], leaf.dtype)
