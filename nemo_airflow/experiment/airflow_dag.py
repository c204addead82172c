"""Makes a DAG of Airflow of an experiment: the same jobs, in the same order."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_airflow.config.objects.origins import find_caller
from nemo_airflow.experiment.tasks import Task
from nemo_airflow.tracking.base import Tracker

if TYPE_CHECKING:
    from airflow.sdk import DAG


def make_dag(
    dag_id: str,
    jobs: Mapping[str, Sequence[Task]],
    dependencies: Mapping[str, Sequence[str]],
    groups: Collection[str],
    tracker: Tracker | None,
    experiment: str,
    arguments: Mapping[str, Any],
) -> DAG:
    """Returns the DAG.

    Args:
        dag_id: Its id.
        jobs: The tasks of each job, by the job's id.
        dependencies: For each job those that have to succeed before.
        groups: Ids of those that are groups.
        tracker: What remembers the runs, or None.
        experiment: The tracker's experiment.
        arguments: Further arguments of ``DAG``.

    Raises:
        NemoAirflowError: A config is wrong.
    """
    from airflow.sdk import DAG, TaskGroup

    from nemo_airflow.operators import NemoRunOperator

    with DAG(dag_id, **{"schedule": None, **arguments}) as dag:
        # The code of a DAG is beside the file that makes it, which is not this one, wherever Airflow reads that.
        dag.fileloc = find_caller().filename
        folder = Path(dag.fileloc).parent
        made: dict[str, Any] = {}

        def operator(task: Task) -> NemoRunOperator:
            return NemoRunOperator(
                task_id=task.name,
                config=task.readable(),
                job_executor=task.executor,
                packager=dataclasses.replace(task, folder=folder).shipped_by(),
                tracker=tracker,
                experiment=experiment,
                outputs=task.outputs,
                allow=task.allow,
            )

        for name, tasks in jobs.items():
            if name in groups:
                with TaskGroup(name.replace(".", "-"), prefix_group_id=False) as made[name]:
                    for task in tasks:
                        operator(task)
            else:
                made[name] = operator(tasks[0])
            for before in dependencies[name]:
                made[before] >> made[name]
    return dag
