"""Trained policies that come with the package, by name; each is in a folder like that of a run.

    pg/zoo/ENV/LABEL/
        config.json          settings, as for a run with one seed
        params.safetensors   parameters of the policy and running statistics, without a critic's
        evaluation.json      the scores of the policy, and the run that trained it

    policy = pg.load_policy("CartPole-v1/ppo")

`pg zoo` lists them, and makes them from the folder of a benchmark. Imports neither jax nor gymnax.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

from pg.inputs import nearest
from pg.runs import files, folders

__all__ = ["FOLDER", "Entry", "entries", "names", "read_entry", "resolved", "write_entry"]

FOLDER = Path(__file__).parents[1] / "zoo"
EVALUATION = "evaluation.json"
# The expected shape of evaluation.json (see `inputs.misfit`).
SHAPE: dict[str, Any] = {
    "evaluation": {
        "mean": float,
        "standard_error": float,
        "episodes": int,
        "seed": int,
        "greedy": bool,
    },
    "training": {"seed": int, "env_steps": int, "versions": dict},
}


class Entry(NamedTuple):
    """A policy of the zoo, and its scores."""

    name: str  # ENV/LABEL
    mean: float  # return of the evaluation's episodes
    standard_error: float
    episodes: int
    greedy: bool  # True: evaluated with the mode; else with samples
    seed: int  # of the evaluation
    training_seed: int
    env_steps: int  # of the training
    versions: dict[str, str]  # of the training


def names(zoo: Path = FOLDER) -> list[str]:
    """The names of the policies, ENV/LABEL, sorted."""
    found = zoo.glob(f"*/*/{EVALUATION}")
    return sorted("/".join(path.parent.relative_to(zoo).parts) for path in found)


def entries(zoo: Path = FOLDER) -> list[Entry]:
    """The scores of all policies. Raises ValueError if a file is corrupt."""
    return [read_entry(name, zoo) for name in names(zoo)]


def read_entry(name: str, zoo: Path = FOLDER) -> Entry:
    """The scores of a policy. Raises ValueError if there are none, or the file is corrupt."""
    data = folders.read_json(zoo / name / EVALUATION, SHAPE)
    scored, trained = data["evaluation"], data["training"]
    of_score = [scored[field] for field in ("mean", "standard_error", "episodes", "greedy", "seed")]
    of_training = [trained[field] for field in ("seed", "env_steps", "versions")]
    return Entry(name, *of_score, *of_training)


def write_entry(entry: Entry, zoo: Path = FOLDER) -> None:
    """Writes evaluation.json, the last file of a policy, which marks it as complete."""
    scored = ("mean", "standard_error", "episodes", "greedy", "seed")
    data = {
        "evaluation": {field: getattr(entry, field) for field in scored},
        "training": {
            "seed": entry.training_seed,
            "env_steps": entry.env_steps,
            "versions": entry.versions,
        },
    }
    folders.write_json(zoo / entry.name / EVALUATION, data)


def folder_of(path: Path, zoo: Path = FOLDER) -> Path | None:
    """The folder of the policy that a path names, if nothing is at the path itself; else None."""
    is_name = not os.path.lexists(path) and path.as_posix() in names(zoo)
    return zoo / path if is_name else None


def resolved(folder: Path | str, zoo: Path = FOLDER) -> Path:
    """The folder of a run: the path itself if it exists, else that of the policy of the zoo with
    this name.

    Raises ValueError for anything else.
    """
    path = Path(folder)
    if os.path.lexists(path):
        return path
    if (of_policy := folder_of(path, zoo)) is not None:
        return of_policy
    text, known = path.as_posix(), names(zoo)
    env = text.split("/", maxsplit=1)[0]
    of_env = [name for name in known if name.startswith(f"{env}/")]
    near = of_env or nearest(text, known)
    hint = f": it has {', '.join(near)}" if near else ""
    raise ValueError(
        f"there is no run {text}, and the zoo has no policy of that name{hint}; give the folder "
        "that pg train or pg sweep printed last, or a name that pg zoo lists"
    )


def remove(name: str, zoo: Path = FOLDER) -> None:
    """Removes the files of a policy that is made again."""
    folder = zoo / name
    files.remove(folder, r"evaluation\.json")
    files.remove(folder, r"(config\.json|params\.safetensors)")
