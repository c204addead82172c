"""Ends a task: which XComs it has, and whether the trigger may end it, as no worker has anything left to do.

What Airflow 3.3 does when a trigger ends a task: it sets the state, and stores XComs. It runs no success callback, no
``post_execute`` and no listener, emits no outlets, counts no length for tasks that are mapped over the result, splits
no ``multiple_outputs``, renders no name of a map index, makes no result the DAG's, and passes over an XCom back-end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.bases.xcom import BaseXCom

from nemo_airflow.artifact_references import find_references

_TAKEN = ("return_value", "nemo_job", "nemo_live")
"""Keys of XComs that have another meaning."""


def needs_no_worker(operator: BaseOperator) -> bool:
    """Returns whether the trigger may end the task once the job has succeeded."""
    from airflow.sdk.execution_time.xcom import XCom
    from airflow.sdk.listener import get_listener_manager

    return not (
        operator.outlets
        or operator.on_success_callback
        or operator._post_execute_hook is not None
        or type(operator).post_execute is not BaseOperator.post_execute
        or operator.multiple_outputs
        or operator.map_index_template is not None
        or operator.returns_dag_result
        or next(operator.iter_mapped_dependants(), None) is not None
        or (operator.do_xcom_push and XCom is not BaseXCom)
        or get_listener_manager().has_listeners
    )


def push_artifacts(ti: Any, result: Any) -> None:
    """Pushes each item of a returned dict with artifacts by its own key, for ``task.output["model"]``."""
    if isinstance(result, Mapping) and find_references(result):
        for name, value in result.items():
            if name not in _TAKEN:
                ti.xcom_push(key=name, value=value)
