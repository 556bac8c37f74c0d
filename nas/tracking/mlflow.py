"""MLflow: an experiment for the study, a run for each candidate."""

from __future__ import annotations

import time
from pathlib import Path

from nas.inputs import InputError, first_line
from nas.study import Told
from nas.tracking.tracker import MEASURED, Tracker, accuracy_name


class _MLflow(Tracker):
    def __init__(self, study: str) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise InputError("mlflow is not installed: pip install 'mobile-nas[mlflow]'") from None
        try:
            self.client = MlflowClient()
            known = self.client.get_experiment_by_name(study)
            self.experiment = known.experiment_id if known else self.client.create_experiment(study)
        except MlflowException as error:
            raise InputError(f"--track mlflow: {first_line(error)}") from None
        if known and known.lifecycle_stage == "deleted":
            raise InputError(f"--track mlflow: the experiment {study} was deleted: restore it, or delete it for good")

    def tell(self, told: Told) -> None:
        if told.outcome not in MEASURED and told.outcome != "failed":
            return
        from mlflow.entities import Metric

        tags = {"outcome": told.outcome, "number": str(told.number), "reason": told.reason}
        run = self.client.create_run(self.experiment, tags=tags, run_name=told.id).info.run_id
        values = {accuracy_name(told): told.accuracy, "seconds": told.seconds, **told.costs}
        known = {name: float(value) for name, value in values.items() if value is not None}
        now = round(1000 * time.time())
        self.client.log_batch(run, [Metric(name, value, now, 0) for name, value in known.items()])
        self.client.set_terminated(run, "FAILED" if told.outcome == "failed" else "FINISHED")

    def close(self) -> None:
        """Every run was ended when it was told."""


def mlflow(folder: Path, study: str) -> Tracker:
    """Into the server, or folder, that MLFLOW_TRACKING_URI names."""
    return _MLflow(study)
