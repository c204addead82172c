"""The tasks of a DAG run that have jobs, and what connects them: from the DAG as it was when the run began."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Mapping
from typing import Any

from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from sqlalchemy import select
from sqlalchemy.orm import Session

_OPERATORS = frozenset({"NemoRunOperator", "NemoReproduceOperator", "NemoDecoratedOperator", "@task.nemo"})
_KEPT = 32


@dataclasses.dataclass(frozen=True)
class TaskGraph:
    """The tasks of a DAG.

    Attributes:
        downstream: The tasks that come right after each task, in the order of the DAG.
        mapped: Those that are mapped.
        jobs: Those that are known to run jobs, by their operators.
    """

    downstream: Mapping[str, tuple[str, ...]]
    mapped: frozenset[str] = frozenset()
    jobs: frozenset[str] = frozenset()

    def between(self, wanted: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Returns the wanted tasks and those on a way from one of them to another, each with what follows it."""
        upstream: dict[str, list[str]] = {}
        for task, following in self.downstream.items():
            for each in following:
                upstream.setdefault(each, []).append(task)
        after = _reached(wanted, self.downstream)
        before = _reached(wanted, upstream)
        passed = after & before
        kept = dict.fromkeys(task for task in (*self.downstream, *wanted) if task in wanted or task in passed)
        return {task: tuple(each for each in self.downstream.get(task, ()) if each in kept) for task in kept}


def _reached(begins: Collection[str], ways: Mapping[str, Collection[str]]) -> set[str]:
    """Returns what can be reached from some tasks in one step or more."""
    found: set[str] = set()
    waiting = list(begins)
    while waiting:
        for each in ways.get(waiting.pop(), ()):
            if each not in found:
                found.add(each)
                waiting.append(each)
    return found


_graphs: dict[tuple[Any, str], TaskGraph] = {}
_lock = threading.Lock()


def graph_of(session: Session, dag_run: DagRun) -> TaskGraph:
    """Returns the graph of a DAG run: that of the version of its DAG, or the newest one where that is gone.

    Reading a DAG takes a while, so graphs are kept.
    """
    version = dag_run.created_dag_version_id
    if version is None and (newest := DagVersion.get_latest_version(dag_run.dag_id, session=session)) is not None:
        version = newest.id
    found = select(SerializedDagModel.dag_hash).where(SerializedDagModel.dag_version_id == version)
    digest = session.scalar(found) if version is not None else None
    if digest is None:
        return TaskGraph({})
    key = (version, digest)
    with _lock:
        if key in _graphs:
            return _graphs[key]
    model = session.scalar(select(SerializedDagModel).where(SerializedDagModel.dag_version_id == version))
    graph = _read(model.dag) if model is not None else TaskGraph({})
    with _lock:
        while len(_graphs) >= _KEPT:
            del _graphs[next(iter(_graphs))]
        _graphs[key] = graph
    return graph


def _read(dag: Any) -> TaskGraph:
    return TaskGraph(
        downstream={task.task_id: tuple(sorted(task.downstream_task_ids)) for task in dag.tasks},
        mapped=frozenset(task.task_id for task in dag.tasks if task.get_needs_expansion()),
        jobs=frozenset(task.task_id for task in dag.tasks if {task.task_type, task.operator_name} & _OPERATORS),
    )
