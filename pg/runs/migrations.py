"""What has changed since a folder was written, so that old folders still load.

A setting whose name changes, and an array that is new, get a row here, and `tests/data` a folder
that was written before.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

RENAMED: dict[str, dict[str, str]] = {
    "config": {"action_law": "action_distribution", "memory": "rnn", "memory_size": "rnn_size"},
    "hyperparams": {"lambda_": "gae_lambda"},
}

# Arrays that training has carried since, with the values that they start from.
ADDED = {"normaliser.extremes.0": math.inf, "normaliser.extremes.1": -math.inf}


def migrated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings under the names of today.

    Args:
        settings: the entries `config` and `hyperparams`, as JSON has them; others are kept as they
            are.
    """
    new = dict(settings)
    for part, names in RENAMED.items():
        stored = settings.get(part)
        if isinstance(stored, Mapping):
            new[part] = {names.get(name, name): value for name, value in stored.items()}
    return new


def is_added(name: str) -> bool:
    """True for an array that files of before do not have; name: as parameters or checkpoints write
    its path.
    """
    return _plain(name) in ADDED


def added(name: str, leaf: Any, runs: tuple[int, ...]) -> np.ndarray:
    """The array [*runs, ...] that a file of before does not have, as training starts it.

    Args:
        name: path of the array, for which `is_added`.
        leaf: shape and type of the array of one run.
        runs: the axes of the runs in the file.
    """
    return np.full((*runs, *leaf.shape), ADDED[_plain(name)], leaf.dtype)


def _plain(path: str) -> str:
    return ".".join(re.findall(r"\w+", path))
