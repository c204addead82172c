"""Runs jobs on clouds by SkyPilot."""

from nemo_airflow.executors.skypilot.executor import SkypilotExecutor

__all__ = ["SkypilotExecutor"]
