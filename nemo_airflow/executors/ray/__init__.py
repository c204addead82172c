"""Runs jobs on a Ray cluster, through the job API of its dashboard.

A job is one Ray job, named by the job's key. Its code goes into the cluster's own package store,
its stream is Ray's log of it, and its outputs wait beside that log.
"""

from nemo_airflow.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
