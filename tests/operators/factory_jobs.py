"""A factory of configs that a run's conf may name."""

from __future__ import annotations

import operator_jobs

from nemo_airflow import Config


def deep(hidden: int = 5) -> Config:
    """Returns a config of code that an allow-list may not have."""
    return Config(operator_jobs.DeepModel, hidden=hidden)
