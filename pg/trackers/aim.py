"""Aim: a run of the experiment ENV/ESTIMATOR in the repository of the folder of results.

`aim up --repo results` indexes and shows it. A curve is a metric with the seed as its context.

On Python 3.12 and later Aim 3.29 prints at exit that it cannot start a thread; all its data is on
the disk by then.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.runs import folders
from pg.trackers import base


class Aim:
    """Tracks one run of Aim, which a resumed run continues."""

    name = "aim"

    def start(self, run: base.RunInfo) -> str:
        """Starts the run with its settings, or continues it."""
        import aim

        self.updates = run.updates
        self.seeds = run.seeds
        self.aim_run = aim.Run(
            run_hash=run.id,
            repo=str(run.out),
            experiment=run.group,
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )
        self.aim_run.name = run.name
        self.aim_run["settings"] = folders.jsonable(base.flat(run.settings))
        return str(self.aim_run.hash)

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A point of every curve."""
        self.updates = updates
        for curve, value in base.named(self.seeds, metrics).items():
            group, _, name = curve.partition("/")
            self.aim_run.track(value, name=name, step=updates, context={"of": group})

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        """Final figures, pictures, and the end of the run."""
        import aim

        self.aim_run["final"] = base.figures(summary or {})
        for path in pictures:
            self.aim_run.track(aim.Image(str(path)), name=path.stem, step=self.updates)
        self.aim_run.close()


def make() -> Aim:
    """The tracker of a run."""
    return Aim()
