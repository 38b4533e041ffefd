"""TensorBoard: event files in tensorboard/ of the run's folder.

`tensorboard --logdir results` shows them. Written by tensorboardX, which needs no TensorFlow.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.trackers import base


class TensorBoard:
    """Writes event files."""

    name = "tensorboard"

    def start(self, run: base.RunInfo) -> str:
        """Opens a new file; for a resumed run, TensorBoard reads it after the earlier ones."""
        from tensorboardX import SummaryWriter

        self.run, self.updates = run, run.updates
        self.writer = SummaryWriter(str(run.folder / "tensorboard"))
        text = json.dumps(run.settings, indent=2, default=str)
        self.writer.add_text("settings", f"```\n{text}\n```", run.updates)
        return run.name

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A point of every curve."""
        self.updates = updates
        for name, value in base.named(self.run.seeds, metrics).items():
            self.writer.add_scalar(name, value, updates)
        self.writer.flush()

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        """Final figures and pictures."""
        from PIL import Image

        for name, value in base.figures(summary or {}).items():
            self.writer.add_scalar(name, value, self.updates)
        for path in pictures:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(path.stem, pixels, self.updates, dataformats="HWC")
        self.writer.close()


def make() -> TensorBoard:
    """The tracker of a run."""
    return TensorBoard()
