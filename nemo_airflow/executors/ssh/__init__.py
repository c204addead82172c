"""Runs jobs over SSH: on a plain host, and what batch systems behind a login node build on."""

from nemo_airflow.executors.ssh.executor import SSHExecutor

__all__ = ["SSHExecutor"]
