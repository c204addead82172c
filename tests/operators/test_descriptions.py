"""A job is described by its task's own text, else by the docstring of its function; its DAG run by the DAG's text."""

from __future__ import annotations

import dataclasses

import pytest
from airflow.sdk import DAG, task
from operator_jobs import Model, keep, train

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, Script


def count(limit: int) -> int:
    """Counts up to a limit.

    In steps of *one*.

    Args:
        limit: The last number.
    """
    return limit


@dataclasses.dataclass
class Undescribed:
    size: int = 1


def describe(task_context, operator, dag):
    context = {**task_context(dag), "task": operator}
    prepared = operator._prepare(context)
    job = prepared.job(1)
    assert '"description"' not in job.dumps()
    return job.description, job.run_description


@pytest.mark.parametrize(
    ("config", "doc_md", "expected"),
    [
        (Config(keep, learning_rate=1.0), "  Trains.\n\n    - *well*", "Trains.\n\n- *well*"),
        (Config(keep, learning_rate=1.0), None, "Logs a metric and keeps a file."),
        (Config(count, limit=1), None, "Counts up to a limit.\n\nIn steps of *one*."),
        (Config(train, model=Config(Model)), None, ""),
        (Config(Undescribed), None, ""),
        (Script("true"), None, ""),
    ],
    ids=["its-own-text", "docstring", "without-arguments", "none", "dataclass", "script"],
)
def test_a_task_is_described_by_its_text_else_by_its_function(task_context, config, doc_md, expected):
    with DAG("dag", doc_md="\n    Weekly.\n    ") as dag:
        operator = NemoRunOperator(task_id="t", config=config, job_executor=LocalExecutor(), doc_md=doc_md)
    assert describe(task_context, operator, dag) == (expected, "Weekly.")


def test_a_decorated_task_is_described_by_its_docstring(task_context):
    with DAG("dag") as dag:

        @task.nemo(job_executor=LocalExecutor())
        def t():
            """Does it.

            Twice.
            """
            return Config(count, limit=2)

        operator = t().operator
    assert (operator.doc_md or "").startswith("Does it.")
    prepared = {**task_context(dag), "task": operator}
    operator.config = Config(count, limit=2)
    assert operator._prepare(prepared).description == "Does it.\n\nTwice."
