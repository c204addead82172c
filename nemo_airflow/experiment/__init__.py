"""Several jobs under one title without Airflow: some after others, kept on this machine until all have ended."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {"Experiment": "experiment", "ExperimentPlugin": "plugins", "run": "experiment"}

__all__ = ["Experiment", "ExperimentPlugin", "run"]

if TYPE_CHECKING:
    from nemo_airflow.experiment.experiment import Experiment, run
    from nemo_airflow.experiment.plugins import ExperimentPlugin


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
