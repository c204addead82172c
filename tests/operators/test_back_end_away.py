"""A back-end that is away for a while costs a worker some patience, and nothing else."""

import datetime
from pathlib import Path

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from dag_database import register

from nemo_airflow import Config, LocalExecutor, NemoRunOperator
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.local import LocalDriver

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def away(monkeypatch):
    """Makes verbs of the driver fail so many times."""
    left = {}

    def make(**failures):
        left.update(failures)
        for name in failures:
            verb = getattr(LocalDriver, name)

            async def failing(self, *arguments, name=name, verb=verb):
                answer = await verb(self, *arguments)
                if left[name] > 0:
                    left[name] -= 1
                    raise BackendUnavailable("the network is down")  # after it was done: the answer is what was lost
                return answer

            monkeypatch.setattr(LocalDriver, name, failing)
        return left

    return make


def run(tmp_path, dag_id, counter):
    executor = LocalExecutor(root=str(tmp_path / "jobs"))
    with DAG(dag_id, schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(
            task_id="t", config=Config(jobs.count, counter=str(counter)), job_executor=executor, tracker=None,
            env={"PYTHONPATH": str(Path(jobs.__file__).parent)},
        )  # fmt: skip
    register(dag)
    [ti] = dag.test().get_task_instances()
    return ti.state


def test_answers_that_are_lost_are_asked_for_again_and_the_job_runs_once(tmp_path, away, capfd):
    left = away(find=2, submit=2)
    counter = tmp_path / "count"
    assert run(tmp_path, "away_for_a_while", counter) == "success"
    assert left == {"find": 0, "submit": 0}
    assert counter.read_text().splitlines() == ["ran"]
    assert "The back-end is away, trying again" in "".join(capfd.readouterr())


def test_one_that_stays_away_fails_the_try_which_can_be_tried_again(tmp_path, away, monkeypatch, capfd):
    monkeypatch.setattr("nemo_airflow.operators.back_end.PATIENCE", 1.0)
    away(find=1000)
    assert run(tmp_path, "away_for_long", tmp_path / "count") == "failed"
    assert "BackendUnavailable: the network is down" in "".join(capfd.readouterr())
