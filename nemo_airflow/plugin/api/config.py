"""The config of a job as a tree, who has set what of it, and what has changed since an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query

from nemo_airflow.config import plan as plans
from nemo_airflow.config.views import outline
from nemo_airflow.config.views.differences import diff
from nemo_airflow.config.views.outline import Node
from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.plugin.api.answers import Answer, TrackerState
from nemo_airflow.plugin.api.earlier import earlier_run
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep, Source
from nemo_airflow.tracking.mlflow.address import resolve
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.store import open_store

router = APIRouter(tags=["config"])

_MOST_ROWS = 100_000
_MOST_CHANGES = 5000
_LONGEST = 4000
"""Characters of a value that an answer has."""


class ConfigTree(Answer):
    """A config: one row for each of its nodes, as columns; each parent before its children.

    Attributes:
        depths: How deep each is; the root has 0.
        keys: The name of each in its parent.
        paths: The dotted path of each.
        values: The value of a leaf; of others how they begin, such as ``Net(``.
        is_leaf: Whether it is a value.
        set_by: Who has set it: its number in ``who``; -1 for a default, -2 where that is not recorded.
        who: Places that have set values, such as ``dags/train.py:12 in make``, or ``the run's conf``.
        same_as: For a place that shares an object with an earlier one: the path of that; else an empty text.
        more: How many nodes there are besides these.
        is_whole: Whether this is the whole config; if not, it is what Airflow has of it.
        tracker: The MLflow that has it.
    """

    depths: list[int]
    keys: list[str]
    paths: list[str]
    values: list[str]
    is_leaf: list[bool]
    set_by: list[int]
    who: list[str]
    same_as: list[str]
    more: int = 0
    is_whole: bool = True
    tracker: TrackerState


class ConfigChange(Answer):
    """A change of the config.

    Attributes:
        path: Dotted path, in the newer config unless it was removed.
        kind: ``changed``, ``added``, ``removed``, ``retargeted``, ``shared`` or ``unshared``.
        old: What was there.
        new: What is there.
    """

    path: str
    kind: str
    old: str
    new: str


class ConfigChanges(Answer):
    """What has changed since an earlier run of the same task.

    Attributes:
        mlflow_run_id: That run; empty where there is none.
        key: The key of its job.
        started: When it began.
        changes: The changes.
        more: How many there are besides these.
        tracker: The MLflow that has it.
    """

    mlflow_run_id: str = ""
    key: str = ""
    started: float | None = None
    changes: list[ConfigChange]
    more: int = 0
    tracker: TrackerState


@router.get("/job/config")
def get_config(found: FoundJobDep) -> ConfigTree:
    """Returns the config of a job: of MLflow, or else as much as Airflow has of it."""
    if found.run is None or found.source is None:
        return _of_record(found, found.tracker)
    try:
        plan = _plan(found.source, found.run)
        asked = json.loads(_read(found.source, found.run, "job.json") or b"{}")
    except (NemoAirflowError, ValueError) as error:
        return _of_record(found, TrackerState(uri=found.tracker.uri, away=str(error)))
    if plan is None:
        return _of_record(found, found.tracker)
    told = asked.get("set_by") if isinstance(asked, Mapping) else None
    rows = _Rows(told if isinstance(told, Mapping) else None)
    rows.add(plan)
    return ConfigTree(
        depths=rows.depths, keys=rows.keys, paths=rows.paths, values=rows.values, is_leaf=rows.is_leaf,
        set_by=rows.set_by, who=rows.who, same_as=rows.same_as, more=rows.more, tracker=found.tracker,
    )  # fmt: skip


@router.get("/job/config/changes")
def get_changes(
    found: FoundJobDep,
    since: Annotated[
        Literal["last", "good"], Query(description="The last run of the task before, or the last one that succeeded.")
    ] = "last",
) -> ConfigChanges:
    """Returns what has changed in the config since an earlier run of the same task."""
    run, source = found.run, found.source
    if run is None or source is None:
        return ConfigChanges(changes=[], tracker=found.tracker)
    try:
        other = earlier_run(found, since)
        old, new = (_plan(source, other), _plan(source, run)) if other is not None else (None, None)
        changes = diff(old, new).changes if old is not None and new is not None else ()
    except NemoAirflowError as error:
        if isinstance(error, TrackingError):
            return ConfigChanges(changes=[], tracker=TrackerState(uri=found.tracker.uri, away=str(error)))
        raise HTTPException(422, f"the two configs cannot be compared: {error}") from error
    return ConfigChanges(
        mlflow_run_id=other.run_id if other else "",
        key=other.key if other else "",
        started=other.began if other else None,
        changes=[
            ConfigChange(path=each.path, kind=each.kind, old=each.old, new=each.new) for each in changes[:_MOST_CHANGES]
        ],
        more=max(len(changes) - _MOST_CHANGES, 0),
        tracker=found.tracker,
    )


def _plan(source: Source, run: JobRun) -> Mapping[str, Any] | None:
    data = _read(source, run, "plan.json")
    return plans.loads(data) if data is not None else None


def _read(source: Source, run: JobRun, name: str) -> bytes | None:
    store = open_store(*resolve(source.tracking_uri, source.conn_id))
    return store.read(store.run(run.run_id), f"nemo_airflow/{name}")


def _of_record(found: FoundJob, tracker: TrackerState) -> ConfigTree:
    told = found.record.get("config")
    values = {str(path): str(value) for path, value in told.items()} if isinstance(told, Mapping) else {}
    count = len(values)
    return ConfigTree(
        depths=[0] * count,
        keys=list(values),
        paths=list(values),
        values=[value[:_LONGEST] for value in values.values()],
        is_leaf=[True] * count,
        set_by=[-2] * count,
        who=[],
        same_as=[""] * count,
        is_whole=False,
        tracker=tracker,
    )


class _Rows:
    """Makes the rows of a config.

    Args:
        told: Who has set what, as :func:`nemo_airflow.operators.preparation.origins_of` has recorded it; or None.
    """

    def __init__(self, told: Mapping[str, Any] | None) -> None:
        self.depths: list[int] = []
        self.keys: list[str] = []
        self.paths: list[str] = []
        self.values: list[str] = []
        self.is_leaf: list[bool] = []
        self.set_by: list[int] = []
        self.same_as: list[str] = []
        self.more = 0
        self.who = [str(each) for each in told.get("who") or ()] if told else []
        paths = told.get("paths") if told else None
        self._set = paths if isinstance(paths, Mapping) else None
        self._seen: set[int] = set()

    def add(self, plan: Mapping[str, Any]) -> None:
        root = outline.of_plan(plan)
        self._add(root, "", "", 0, -1 if self._set is None else self._by("", 0))
        if self._set is None:
            self.set_by = [-2] * len(self.set_by)

    def _by(self, path: str, otherwise: int) -> int:
        number = self._set.get(path, otherwise) if self._set is not None else -2
        return number if isinstance(number, int) and -2 <= number < len(self.who) else -2

    def _add(self, node: Node, key: str, path: str, depth: int, by: int) -> None:
        if len(self.depths) >= _MOST_ROWS:
            self.more += 1
            return
        again = node.form != "leaf" and id(node) in self._seen
        leaf = node.form == "leaf"
        self._seen.add(id(node))
        self.depths.append(depth)
        self.keys.append(key)
        self.paths.append(path)
        self.values.append(outline.summary(node, _LONGEST) if leaf else _opening(node))
        self.is_leaf.append(leaf)
        self.set_by.append(by)
        self.same_as.append(node.path if again else "")
        if again:
            return
        for name, child in node.edges:
            below = outline.join_key(path, name)
            # What a call has not been given is a default; what is in a list or a dict was set with it.
            of_child = self._by(below, -1 if node.is_config else by)
            self._add(child, outline.key_text(name), below, depth + 1, of_child)


def _opening(node: Node) -> str:
    text = outline.format_opening(node)
    return text if node.edges else text + outline.format_closing(node)
