"""Runs jobs as pods of a Kubernetes cluster; nothing of ours has to be in their image but Python."""

from nemo_airflow.executors.kubernetes.executor import KubernetesExecutor

__all__ = ["KubernetesExecutor"]
