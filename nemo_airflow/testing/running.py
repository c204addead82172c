"""Runs a task or a config on this machine, in an Airflow of the tests' own."""

from __future__ import annotations

import contextlib
import copy
import datetime
import importlib
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import JobFailed, SettingsError
from nemo_airflow.executors.local import LocalExecutor
from nemo_airflow.job import FailureKind
from nemo_airflow.language.nearest import nearest
from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.working_tree import with_changes
from nemo_airflow.testing.airflow_home import AirflowHome
from nemo_airflow.testing.job_run import JobRun, find_jobs, raise_failure, read_job

_EVENTS = ("execute", "failure", "success", "retry", "skipped")
"""Events of a task that Airflow has callbacks for, which may tell people."""


def run_task(
    home: AirflowHome,
    dag: Any,
    task_id: str,
    *,
    params: Mapping[str, Any] | None = None,
    map_index: int = -1,
    logical_date: datetime.datetime | None = None,
) -> JobRun:
    """Runs a task, and the tasks it depends on, by ``dag.test()``; jobs run on this machine and are not tracked.

    Code is packaged as the task says, but with uncommitted changes, so that a test sees what was just edited. The
    tasks are not retried.

    Args:
        home: The Airflow to run it in.
        dag: The DAG.
        task_id: The task.
        params: Values of the trigger form.
        map_index: Which task of a mapped one.
        logical_date: The date of the run; now if None.

    Raises:
        SettingsError: The DAG has no such task, or it is mapped and no index is given.
        JobFailed: The task, or one it depends on, did not succeed.
    """
    if task_id not in dag.task_ids:
        raise SettingsError(f"DAG {dag.dag_id!r} has no task {task_id!r}{nearest(task_id, sorted(dag.task_ids))}")
    if dag.get_task(task_id).is_mapped and map_index < 0:
        raise SettingsError(f"task {task_id!r} is mapped: give map_index=0 for the first of its tasks")
    needed = {task_id, *dag.get_task(task_id).get_flat_relative_ids(upstream=True)}
    others = sorted(set(dag.task_ids) - needed)
    executor = LocalExecutor(root=str(home.jobs), ttl=None)
    with home.active(Path(dag.fileloc).resolve().parent), _run_here(dag, needed, executor):
        _register(dag)
        run = dag.test(
            logical_date=logical_date or datetime.datetime.now(datetime.UTC),
            run_conf=dict(params or {}),
            mark_success_pattern=f"^(?:{'|'.join(map(re.escape, others))})$" if others else None,
        )
        states = {(each.task_id, each.map_index): str(each.state) for each in run.get_task_instances()}
        labels = {"dag_id": dag.dag_id, "run_id": run.run_id}
        for folder in find_jobs(home.jobs, **labels):
            raise_failure(folder)
        if wrong := sorted(f"{name} {state}" for (name, _), state in states.items() if state != "success"):
            raise JobFailed(
                f"DAG {dag.dag_id!r} did not succeed: {', '.join(wrong)}; the log above says why",
                FailureKind.USER_ERROR,
            )
        indices = sorted(index for name, index in states if name == task_id)
        if map_index not in indices:
            raise SettingsError(f"task {task_id!r} has no map_index={map_index}: give one of {indices}")
        result = _result_of(labels, task_id, map_index)
    found = find_jobs(home.jobs, **labels, task_id=task_id, map_index=str(map_index))
    return read_job(found[-1], result) if found else JobRun(result)


def run_config(home: AirflowHome, config: Any, *, folder: Path | None = None) -> JobRun:
    """Runs a config as a job on this machine, without a DAG and without tracking.

    Args:
        home: Where the job is kept.
        config: The config.
        folder: The folder of the code, in front of what this process imports from; the current one if None.

    Raises:
        ConfigError: The config is wrong.
        JobFailed: The job failed.
    """
    from nemo_airflow.launch.following import Following
    from nemo_airflow.launch.records import Records
    from nemo_airflow.launch.submission import Launch, Options

    code = [str(folder or Path.cwd()), *(path for path in sys.path if path)]
    executor = LocalExecutor(root=str(home.jobs), ttl=None)
    options = Options(name="test", env={"PYTHONPATH": os.pathsep.join(dict.fromkeys(code))})
    warnings: list[str] = []
    with home.folders_active():
        launch, records = Launch(config, executor, options, warnings.append), Records()
        record = launch.submit(records, launch.package())
        outcome = Following(records, record, lambda line: None, warnings.append).run()
    job = next(folder for folder in find_jobs(home.jobs) if folder.path.name == record.key)
    raise_failure(job)
    return read_job(job, outcome.result)


@contextlib.contextmanager
def _run_here(dag: Any, names: Collection[str], executor: LocalExecutor) -> Iterator[None]:
    """Changes tasks, and changes them back: their jobs run here, untracked, none is retried, and nobody is told."""
    from nemo_airflow.operators import NemoRunOperator
    from nemo_airflow.operators.arguments import unwrap, wrap

    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    params, dag.params = dag.params, copy.deepcopy(dag.params)  # a run by dag.test() writes its own into them
    for task in (dag.get_task(name) for name in names):
        given: dict[str, Any] = {"retries": 0, **{f"on_{event}_callback": [] for event in _EVENTS}}
        if task.is_mapped:
            fields = task.partial_kwargs
            if issubclass(task.operator_class, NemoRunOperator):
                given |= {
                    "tracker": None,
                    "job_executor": executor,
                    "packager": _changes_included(fields.get("packager")),
                    "on_alert_callback": (),
                }
        else:
            fields = vars(task)
            if isinstance(task, NemoRunOperator):
                packager = wrap(_changes_included(unwrap(task.packager)))
                given |= {"tracker": wrap(None), "job_executor": wrap(executor), "packager": packager}
                given |= {"operator_extra_links": (), "alerts": None}
        if "params" in fields:
            given["params"] = copy.deepcopy(fields["params"])
        before.append((fields, dict(fields)))
        fields.update(given)
    try:
        yield
    finally:
        for fields, earlier in before:
            fields.clear()
            fields.update(earlier)
        dag.params = params


def _changes_included(packager: Any) -> Any:
    return with_changes(packager) if isinstance(packager, Packager) else packager


def _register(dag: Any) -> None:
    """Writes a DAG to the database, as the DAG processor does with those in files."""
    manager: Any = importlib.import_module("airflow.dag_processing.bundles.manager")
    serialized: Any = importlib.import_module("airflow.models.serialized_dag")
    definitions: Any = importlib.import_module("airflow.serialization.definitions.dag")
    objects: Any = importlib.import_module("airflow.serialization.serialized_objects")
    from airflow.utils.session import create_session

    manager.DagBundlesManager().sync_bundles_to_db()
    data = objects.LazyDeserializedDAG.from_dag(dag)
    with create_session() as session:
        definitions.SerializedDAG.bulk_write_to_db("dags-folder", None, [data], session=session)
        serialized.SerializedDagModel.write_dag(data, bundle_name="dags-folder", session=session)


def _result_of(labels: Mapping[str, str], task_id: str, map_index: int) -> Any:
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        rows = session.scalars(
            XComModel.get_many(
                run_id=labels["run_id"], dag_ids=labels["dag_id"], task_ids=task_id, map_indexes=map_index,
                key="return_value",
            )
        ).all()  # fmt: skip
        return next((XComModel.deserialize_value(row) for row in rows), None)
