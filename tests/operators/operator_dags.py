"""DAGs of the operator's tests, run by ``dag.test()``: deferral included, with real jobs."""

import datetime
import itertools

from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.utils.session import create_session
from dag_database import register

names = (f"operator_test_{number}" for number in itertools.count())


def new_dag(**arguments):
    return DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1), **arguments)


def run(dag, **arguments):
    """Runs a DAG and returns the states of its tasks and what they returned, by task id and map index."""
    register(dag)
    dag_run = dag.test(**arguments)
    states = {(ti.task_id, ti.map_index): ti.state for ti in dag_run.get_task_instances()}
    with create_session() as session:
        rows = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag.dag_id, key="return_value")).all()
        results = {(row.task_id, row.map_index): XComModel.deserialize_value(row) for row in rows}
    return states, results


def jobs_in(root):
    return [path for path in root.iterdir() if not path.name.startswith(".")] if root.exists() else []
