"""Weights & Biases: a run of the project WANDB_PROJECT, by default `pg`.

WANDB_MODE=offline keeps it in wandb/ of the run's folder, for `wandb sync`.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.trackers import base


class WeightsAndBiases:
    """Logs to one run of W&B, which a resumed run continues."""

    name = "wandb"

    def start(self, run: base.RunInfo) -> str:
        """Starts the run, or continues it."""
        import wandb

        self.run = run
        self.wandb_run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pg"),
            dir=str(run.folder),
            id=run.id,
            name=run.name,
            group=run.group,
            config=base.flat(run.settings),
            resume=None if run.id is None else "allow",
            # leave the run's output and signals alone
            settings=wandb.Settings(silent=True, console="off"),
        )
        return str(self.wandb_run.id)

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A row of the history."""
        self.wandb_run.log(base.named(self.run.seeds, metrics), step=updates)

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        """Final figures, pictures, and the end of the run."""
        import wandb

        if summary:
            self.wandb_run.summary.update({**base.figures(summary), "status": summary["status"]})
        for path in pictures:
            self.wandb_run.log({path.stem: wandb.Image(str(path))})
        self.wandb_run.finish(exit_code=0 if summary else 1)


def make() -> WeightsAndBiases:
    """The tracker of a run."""
    return WeightsAndBiases()
