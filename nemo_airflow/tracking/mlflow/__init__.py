"""Records runs in MLflow: an experiment, a parent run for each DAG run, a child run for each job."""

from __future__ import annotations

from nemo_airflow.tracking.mlflow.tracker import MLflowTracker

__all__ = ["MLflowTracker"]
