"""The operator, its links, and what makes a job of its arguments."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "NemoRunOperator": "run",
    "MLflowRunLink": "links",
    "params_from": "params",
    "overrides_from": "params",
    "FailureKindRetryPolicy": "retry",
    "NemoReapOperator": "reap",
    "NemoReproduceOperator": "reproduce",
}

__all__ = [
    "FailureKindRetryPolicy",
    "MLflowRunLink",
    "NemoReapOperator",
    "NemoReproduceOperator",
    "NemoRunOperator",
    "overrides_from",
    "params_from",
]

if TYPE_CHECKING:
    from nemo_airflow.operators.links import MLflowRunLink
    from nemo_airflow.operators.params import overrides_from, params_from
    from nemo_airflow.operators.reap import NemoReapOperator
    from nemo_airflow.operators.reproduce import NemoReproduceOperator
    from nemo_airflow.operators.retry import FailureKindRetryPolicy
    from nemo_airflow.operators.run import NemoRunOperator


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
