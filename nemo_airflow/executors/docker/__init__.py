"""Runs jobs as containers of a Docker daemon."""

from nemo_airflow.executors.docker.executor import DockerExecutor

__all__ = ["DockerExecutor"]
