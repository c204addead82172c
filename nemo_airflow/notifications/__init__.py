"""Notifiers: what is told of a task and its job, to people outside Airflow."""

from nemo_airflow.notifications.run import NemoRunNotifier

__all__ = ["NemoRunNotifier"]
