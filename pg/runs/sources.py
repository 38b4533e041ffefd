"""The parameters of a policy from a path that the user gives, for `--init-from` and `--reference`.

    RUN                  the folder of a run with one seed, or of a sweep: its best configuration
    RUN:SEED             one of several seeds
    ENV/LABEL            a policy of the zoo, such as CartPole-v1/ppo
    FILE.safetensors     as `pg.save_params` writes it; RUN/best.safetensors, the best parameters

Imports no jax, so that an invalid path is refused at once.
"""

import os
import re
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from pg.inputs import described, shown
from pg.runs import files, folders, policy_files, zoo
from pg.settings.stored_params import FIELDS, StoredParams, digest_of

__all__ = ["FORM", "given", "load_params"]

FORM = "RUN|RUN:SEED|ENV/LABEL|FILE.safetensors"
_LAST = "params.safetensors"


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the parameters themselves instead of their paths.

    Raises ValueError as `load_params` does, with the name of the setting.
    """
    found: dict[str, Any] = {}
    for field in FIELDS:
        text = values.get(field)
        if not isinstance(text, str):
            continue
        path, seed = _divided(text)
        try:
            found[field] = load_params(path, seed=seed)
        except files.UnreadableError:
            raise
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None
    return {**values, **found}


def load_params(path: Path | str, *, seed: int | None = None, best: bool = False) -> StoredParams:
    """The parameters of the policy of a run, from which another run starts, or which serve as its
    reference policy.

        start = pg.load_params("results/sequences-reverse/rloo/mine")
        config = pg.Config(env="sequences:reverse", estimator="grpo", init_from=start)

    Args:
        path: the folder of a run, or of a sweep: of its best configuration; the name of a policy
            of the zoo; or a file, as `save_params` writes it.
        seed: the seed, for a run with several.
        best: the parameters with the best evaluation during training, instead of the last ones.

    Raises:
        ValueError: there is no such run, it has not ended, it has several seeds and none is
            chosen, or a parameter is not finite.
    """
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"path must be that of a run, as in 'results/...', got {described(path)}")
    place = Path(path).expanduser()
    place = (zoo.folder_of(place) or place).resolve()
    if not place.exists():
        raise ValueError(
            f"there is no run, and no file of parameters, at {place}: give the folder that pg "
            "train has printed, a name that pg zoo lists, or a file of pg.save_params"
        )
    if place.is_dir():
        folder = folders.run_folder(place)
        if best:
            folders.check_best(folder)
        file = folder / (folders.BEST if best else _LAST)
        if not os.path.lexists(file):
            raise ValueError(f"{folder} is a run that has not ended, and has no {_LAST} yet")
        return _of_run(folder, file, seed)
    is_of_run = place.name in (_LAST, folders.BEST)
    if is_of_run and os.path.lexists(place.parent / "config.json"):
        return _of_run(place.parent, place, seed)
    if seed is not None:
        raise ValueError(f"{place} is a file with the parameters of one policy: leave out the seed")
    arrays = policy_files.read_arrays(place)
    return _stored(arrays, str(place), policy_files.settings_in(place))


def _divided(text: str) -> tuple[str, int | None]:
    """A path, and the seed after it, if there is one."""
    found = re.fullmatch(r"(.+):(\d{1,10})", text, re.DOTALL)
    if found is None or os.path.lexists(Path(text).expanduser()):
        return text, None
    return found[1], int(found[2])


def _of_run(folder: Path, file: Path, seed: int | None) -> StoredParams:
    """The parameters of one seed in a file of a run's folder."""
    stored = folders.read_stored(folder)
    options = stored.get("options", {})
    begin, num_seeds = options.get("seed", 0), options.get("seeds", 1)
    arrays = policy_files.read_arrays(file)
    index = _index(folder, seed, begin, num_seeds)
    if all(x.shape[:1] == (num_seeds,) for x in arrays.values()):
        arrays = {name: x[index] for name, x in arrays.items()}
    elif num_seeds > 1:
        raise ValueError(f"{file} is corrupt: not every array has an axis of {num_seeds} seeds")
    config = {**folders.default_settings()["config"], **stored["config"]}
    at_seed = f":{begin + index}" if num_seeds > 1 else ""
    origin = folder if file.name == _LAST else file
    return _stored(arrays, f"{origin}{at_seed}", policy_files.settings_of(config))


def _index(folder: Path, seed: int | None, begin: int, num_seeds: int) -> int:
    """The place of a seed among those of a run. Raises ValueError if it has no such seed, or
    several and none is chosen.
    """
    last = begin + num_seeds - 1
    if seed is None:
        if num_seeds > 1:
            raise ValueError(
                f"{folder} has the seeds {begin} to {last}, each with its own parameters: "
                f"choose one, as {folder}:{begin} (in Python seed={begin})"
            )
        return 0
    is_known = isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_known or int(seed) not in range(begin, last + 1):
        raise ValueError(
            f"seed must be from {begin} to {last}, those of {folder}, got {shown(seed)}"
        )
    return int(seed) - begin


def _stored(arrays: dict[str, np.ndarray], origin: str, settings: dict[str, Any]) -> StoredParams:
    """Parameters with their digest. Raises ValueError for numbers that are not finite."""
    for name, array in arrays.items():
        if not np.isfinite(array.astype(float)).all():
            raise ValueError(f"{origin} has parameters that are not finite: {name}")
    return StoredParams(digest_of(arrays), arrays, origin, settings)
