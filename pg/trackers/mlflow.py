"""MLflow: a run of the experiment ENV/ESTIMATOR, on the server of MLFLOW_TRACKING_URI or, without
one, in files of mlruns/ in the folder of results.
"""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pg.trackers import base

_MOST = 1000  # metrics per request
_PARAMS = 100  # parameters per request
_LONGEST = 6000  # characters of a parameter
_STATUS = {"finished": "FINISHED", "reached": "FINISHED", "interrupted": "KILLED"}


class MLflow:
    """Logs to one run of MLflow, which a resumed run continues."""

    name = "mlflow"

    def start(self, run: base.RunInfo) -> str:
        """Starts the run with its settings, or continues it."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # read at import
            uri = (run.out / "mlruns").as_uri()

        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self.run, self.client, self.metric = run, MlflowClient(uri), Metric
        self.updates = run.updates
        if run.id is not None:
            self.id = run.id
            self.client.update_run(self.id, status="RUNNING")
            return self.id
        experiment = self.client.get_experiment_by_name(run.group)
        number = (
            experiment.experiment_id if experiment else self.client.create_experiment(run.group)
        )
        self.id = self.client.create_run(number, run_name=run.name).info.run_id
        settings = base.flat(run.settings).items()
        params = [Param(key, str(value)[:_LONGEST]) for key, value in settings]
        for i in range(0, len(params), _PARAMS):
            self.client.log_batch(self.id, params=params[i : i + _PARAMS])
        return str(self.id)

    def log(self, updates: int, metrics: Mapping[str, np.ndarray]) -> None:
        """A point of every curve."""
        self.updates = updates
        self._log(base.named(self.run.seeds, metrics))

    def finish(self, summary: Mapping[str, Any] | None, pictures: Sequence[Path]) -> None:
        """Final figures, pictures, and the end of the run."""
        self._log(base.figures(summary or {}))
        for path in pictures:
            self.client.log_artifact(self.id, str(path))
        status = str((summary or {}).get("status"))
        self.client.set_terminated(self.id, _STATUS.get(status, "FAILED"))

    def _log(self, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        points = [self.metric(name, x, now, self.updates) for name, x in values.items()]
        for i in range(0, len(points), _MOST):
            self.client.log_batch(self.id, metrics=points[i : i + _MOST])


def make() -> MLflow:
    """The tracker of a run."""
    return MLflow()
