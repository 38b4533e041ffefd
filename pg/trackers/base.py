"""The interface of a tracker, and the trackers of a run: a tracker that fails is dropped, and the
run continues.

    RUN/trackers.json    for each tracker its run's id, and the updates that it has received

So a resumed run continues the same run of the tracker, and no update is logged twice. Once per
chunk of updates a tracker receives one number per seed and metric: the mean over the updates of the
chunk, or over its episodes for a metric of episodes. metrics.parquet has every update. Imports
neither jax nor a tracker's library.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from pg.inputs import check_name, described
from pg.runs import folders

__all__ = [
    "TRACKERS",
    "RunInfo",
    "Tracker",
    "Trackers",
    "check",
    "figures",
    "load",
    "named",
]

# The package that each tracker needs, which is also the name of the module to import.
TRACKERS = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow", "aim": "aim"}
FILE = "trackers.json"
# The expected shape of that file (see `inputs.misfit`).
STORED: dict[Any, Any] = {...: {"id": (str, None), "updates": int}}
_OF_EPISODES = ("return", "length")  # metrics that are means over the episodes of an update
_LARGEST = ("nonfinite", "skipped")  # whose largest value is more informative than the mean


class RunInfo(NamedTuple):
    """The tracked run."""

    folder: Path  # its folder
    seeds: list[int]
    settings: dict[str, Any]  # config, hyperparams and options, as config.json has them
    id: str | None  # what `start` returned before, for a resumed run; None: a new one
    updates: int  # those that the tracker has already received

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return self.folder.name

    @property
    def group(self) -> str:
        """ENV/ESTIMATOR, the folders above it."""
        return "/".join(self.folder.parts[-3:-1])

    @property
    def out(self) -> Path:
        """The folder of all results, or that of the run if it was moved elsewhere."""
        return self.folder.parents[2] if len(self.folder.parts) > 3 else self.folder


class Tracker(Protocol):
    """An object that follows a run. An exception in a method ends the tracker, with a warning."""

    def start(self, run: RunInfo) -> str | None:
        """Called before the first update; returns an id with which a resumed run continues."""

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Called after every chunk. updates: those that are done; metrics: [seeds] each, NaN if
        there is no value, as for `eval_return` without an evaluation.
        """

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        """Called at the end. summary: as in summary.json; None: the run was aborted."""


class Trackers:
    """The trackers of a run; one that fails is dropped."""

    def __init__(self, trackers: Sequence[Tracker], say: Callable[[str], None]) -> None:
        """trackers: those of the run. say: prints a warning."""
        self.live = {_name(tracker): tracker for tracker in trackers}
        self.say = say
        self.stored: dict[str, dict[str, Any]] = {}
        self.folder: Path | None = None
        self.env_steps: Any = 0  # of each seed, so far

    def start(
        self, folder: Path, seeds: Sequence[int], settings: Mapping[str, Any], env_steps: Any
    ) -> None:
        """Starts them. env_steps: of each seed, before the coming updates, [S] or 0."""
        self.folder, self.env_steps = folder, env_steps
        path = folder / FILE
        if path.exists():
            try:
                self.stored = folders.read_json(path, STORED)
            except ValueError as error:
                self.say(f"{error}: trackers restart")
        for name in list(self.live):
            before = self.stored.get(name, {"id": None, "updates": 0})
            info = RunInfo(folder, list(seeds), dict(settings), before["id"], before["updates"])
            found = self._call(name, "start", info)
            if name in self.live:
                self.stored[name] = {**before, "id": found}
        self._store()

    def log(self, done: int, metrics: Mapping[str, np.ndarray]) -> None:
        """Gives the trackers the last updates. metrics: [S, n] each, of the updates until
        `done`.
        """
        if not self.live:
            return
        start = done - metrics["env_steps"].shape[1]
        self.env_steps = self.env_steps + metrics["env_steps"].sum(axis=1, dtype=np.int64)
        given = {name: self.stored[name]["updates"] for name in self.live}
        for name in self.live:
            self.stored[name]["updates"] = max(done, given[name])
        self._store()  # first, so that no update is logged twice if the run is killed now
        for name in list(self.live):
            new = {key: x[:, max(0, given[name] - start) :] for key, x in metrics.items()}
            if new["env_steps"].shape[1]:
                means = _means(new) | {"total_env_steps": self.env_steps}
                self._call(name, "log", done, means)

    def finish(self, summary: Mapping[str, Any] | None) -> None:
        """Ends them, once, if they have started. summary: see `Tracker.finish`."""
        if self.folder is None:
            return
        pictures = sorted(self.folder.glob("*.png")) if summary else []
        for name in list(self.live):
            self._call(name, "finish", summary, pictures)
        self.live = {}

    def _call(self, name: str, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.live[name], method)(*arguments)
        except (Exception, SystemExit) as error:  # a library may try to exit the program
            said = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {said[0]}"
            self.say(f"warning: the run continues without the tracker {name} ({reason})")
            del self.live[name]
            return None

    def _store(self) -> None:
        if not (self.folder and self.stored):
            return
        try:
            # after every chunk: waiting for the disk would take longer than the trackers
            folders.write_json(self.folder / FILE, self.stored, sync=False)
        except OSError as error:
            self.say(f"warning: the run continues without trackers ({error})")
            self.live = {}


def check(names: Sequence[str]) -> None:
    """Raises ValueError for an unknown tracker, or one whose package is not installed; none is
    imported.
    """
    for name in names:
        check_name("tracker", name, TRACKERS)
        if importlib.util.find_spec(TRACKERS[name]) is None:
            raise ValueError(
                f"--log {name} needs the package {TRACKERS[name]}: pip install "
                f"'policy-gradients-jax[{name}]'"
            )


def check_own(trackers: Sequence[Any]) -> None:
    """Raises ValueError for an object that is not a tracker, and for two with the same name."""
    for tracker in trackers:
        lacking = [m for m in ("start", "log", "finish") if not callable(getattr(tracker, m, None))]
        if lacking or isinstance(tracker, type):
            raise ValueError(
                f"a tracker must be an object with start, log and finish, like "
                f"pg.trackers.base.Tracker, got {described(tracker)}"
            )
    names = [_name(tracker) for tracker in trackers]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two trackers have the name {twice[0]!r}: give each its own name, as an "
            "attribute `name`"
        )


def load(names: Sequence[str]) -> list[Tracker]:
    """The trackers of these names. Each imports its library when it starts."""
    modules = [importlib.import_module(f"pg.trackers.{name}") for name in names]
    return [module.make() for module in modules]


def named(seeds: Sequence[int], metrics: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Numbers by the names of curves: `seed-0/return` of a seed, `mean/return` over the seeds;
    values that are not finite are left out.

    metrics: [seeds] each.
    """
    curves = {}
    for name, values in metrics.items():
        for seed, value in zip(seeds, values.tolist(), strict=True):
            curves[f"seed-{seed}/{name}"] = float(value)
        curves[f"mean/{name}"] = float(np.mean(values))
    return {name: value for name, value in curves.items() if np.isfinite(value)}


def figures(summary: Mapping[str, Any]) -> dict[str, float]:
    """The final figures of a run, by name: `final/mean`, `final/best/mean` and others."""
    numbers = {f"final/{name}": x for name, x in summary.items()}
    best = summary.get("best", {})
    numbers |= {f"final/best/{name}": x for name, x in best.items()}
    plain = {name: x for name, x in numbers.items() if isinstance(x, int | float)}
    return {name: float(x) for name, x in plain.items() if np.isfinite(x)}


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without groups: config and hyperparams by name, options as `option/NAME`."""
    options = {f"option/{name}": x for name, x in settings.get("options", {}).items()}
    return {**settings.get("config", {}), **settings.get("hyperparams", {}), **options}


def _name(tracker: Tracker) -> str:
    return str(getattr(tracker, "name", type(tracker).__name__))


def _means(metrics: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One number per seed, [S], of metrics of several updates, [S, n]."""
    return {name: _mean_of(name, x, metrics["episodes"]) for name, x in metrics.items()}


def _mean_of(name: str, x: np.ndarray, episodes: np.ndarray) -> np.ndarray:
    if name in _LARGEST:
        return np.asarray(x.max(axis=1), float)
    known = ~np.isnan(x)
    weights = known * (episodes if name in _OF_EPISODES else 1.0)
    total = weights.sum(axis=1)
    mean: np.ndarray = np.where(known, x, 0.0) * weights
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, mean.sum(axis=1) / total, np.nan)
