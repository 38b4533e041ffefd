"""Files of the parameters of a policy: a user's, and the copies in the folder of a run.

    RUN/init_from.safetensors    the parameters with which training starts, without pickle
    RUN/reference.safetensors    those of the reference policy, if that differs

With the copies a run can be resumed after the originals are gone. Their digests are in config.json.
jax is imported only to write a tree.
"""

import contextlib
import dataclasses
import json
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pg.config import Config
from pg.inputs import check_kind, described, shown
from pg.runs import files
from pg.settings.stored_params import FIELDS, OF_POLICY, StoredParams, digest_of

__all__ = [
    "COPIES",
    "OF_POLICY_PARAMS",
    "attached",
    "discard_copies",
    "read_arrays",
    "save_params",
    "settings_in",
    "settings_of",
    "write_copies",
]

OF_POLICY_PARAMS = "params/policy/"  # before the names of the arrays of a policy
COPIES = {field: f"{field}.safetensors" for field in FIELDS}
_HEADER = "pg"  # the entry of a file's header with the settings of the policy


def save_params(file: Path | str, params: Any, config: Config) -> None:
    """Writes the parameters of a policy to a file that `--init-from` and `--reference` read.

        params, losses = pg.pretrain(policy, demonstrations, key)
        pg.save_params("pretrained.safetensors", params, config)

    Args:
        file: its path, which ends in .safetensors.
        params: the parameters of the policy, as `pretrain` returns them.
        config: the settings from which the policy was made; they are compared with those of a run
            that starts with the parameters.

    Raises:
        ValueError: the path has another suffix, or the parameters are not arrays.
    """
    from pg.starting import of_policy

    if not isinstance(file, str | os.PathLike) or Path(file).suffix != ".safetensors":
        got = shown(file) if isinstance(file, str) else described(file)
        raise ValueError(f"file must be a path that ends in .safetensors, got {got}")
    check_kind("config", config, Config, "write pg.Config(...), that of the policy")
    leaves = of_policy(params)
    for name, leaf in leaves.items():
        if not hasattr(leaf, "dtype"):
            raise ValueError(f"params must be a tree of arrays, got {described(leaf)} at {name}")
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    stored = StoredParams(digest_of(arrays), arrays, str(file), settings_of(config.to_json()))
    _write(Path(file).expanduser(), stored)


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that determine the meaning of a policy's parameters. config: as JSON."""
    return {name: config[name] for name in (*OF_POLICY, "policy") if name in config}


def write_copies(folder: Path, config: Config) -> None:
    """Writes the parameters that a Config holds into the folder of a run."""
    for field, name in COPIES.items():
        stored = getattr(config, field)
        if stored is not None and stored.arrays is not None:
            _write(folder / name, stored)


def discard_copies(folder: Path) -> None:
    """Removes the copies from the folder of a run that has done no update."""
    for name in COPIES.values():
        files.remove(folder, name.replace(".", r"\."))


def attached(folder: Path, config: Config) -> Config:
    """The settings of the run in a folder, with the parameters that its config.json names by their
    digests.

    Raises ValueError if a copy is missing, corrupt, or has another digest.
    """
    found: dict[str, Any] = {}
    for field, name in COPIES.items():
        stored = getattr(config, field)
        if stored is None or stored.arrays is not None:
            continue
        path = folder / name
        arrays = read_arrays(path)
        if digest_of(arrays) != stored.digest:
            raise ValueError(f"{path} is corrupt, or of another run: its digest is not {stored!r}")
        found[field] = StoredParams(stored.digest, arrays, str(path), settings_in(path))
    return dataclasses.replace(config, **found) if found else config


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a policy in a file of parameters, by name; those of a critic are not read.

    Raises ValueError if the file is missing, corrupt, or holds no such arrays.
    """
    import safetensors

    with files.opened(path):
        pass
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.startswith(OF_POLICY_PARAMS)]  # noqa: SIM118
            arrays = {name: file.get_tensor(name) for name in names}
    except (OSError, TypeError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} is missing or corrupt: {str(error).splitlines()[0]}") from None
    if not arrays:
        raise ValueError(
            f"{path} holds no parameters of a policy, whose names begin with {OF_POLICY_PARAMS}: "
            "write it by pg.save_params, or give the folder of a run"
        )
    return arrays


def settings_in(path: Path) -> dict[str, Any]:
    """The settings of the policy in the header of a file of parameters; {}: none."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        text = (file.metadata() or {}).get(_HEADER, "{}")
    with contextlib.suppress(ValueError, RecursionError):
        data = json.loads(text)
        if isinstance(data, dict):
            return settings_of(data)
    return {}


def _write(path: Path, stored: StoredParams) -> None:
    """Writes parameters, with the settings of their policy in the header."""
    import safetensors.numpy

    arrays = {name: np.asarray(x, order="C") for name, x in (stored.arrays or {}).items()}
    header = {_HEADER: json.dumps(stored.settings, sort_keys=True)}
    data = safetensors.numpy.save(arrays, metadata=header)
    files.replace(path, operator.methodcaller("write", data))
