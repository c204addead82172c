"""Runs jobs on a Slurm cluster, through its login node."""

from nemo_airflow.executors.slurm.executor import SlurmExecutor

__all__ = ["SlurmExecutor"]
