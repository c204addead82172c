"""Runs jobs on a Grid Engine cluster."""

from nemo_airflow.executors.gridengine.executor import GridEngineExecutor

__all__ = ["GridEngineExecutor"]
