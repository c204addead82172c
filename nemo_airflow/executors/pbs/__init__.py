"""Runs jobs on a PBS cluster."""

from nemo_airflow.executors.pbs.executor import PBSExecutor

__all__ = ["PBSExecutor"]
