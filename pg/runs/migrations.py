"""Names of settings that have changed since a folder was written, so that old folders still load.

A name that changes gets a row here, and `tests/data/folders` a folder that was written before.
"""

from collections.abc import Mapping
from typing import Any

RENAMED: dict[str, dict[str, str]] = {
    "config": {"action_law": "action_distribution", "memory": "rnn", "memory_size": "rnn_size"},
    "hyperparams": {"lambda_": "gae_lambda"},
}


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
