"""A job that stops before it is done is continued: in the same try and run, or by the task's next try."""

import hashlib
import re
from pathlib import Path

import checkpoint_jobs as jobs
import pytest
from mlflow import MlflowClient
from operator_dags import jobs_in, new_dag, run

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator
from nemo_airflow.exceptions import ConfigError, JobFailed
from nemo_airflow.job import FailureKind
from nemo_airflow.tracking.mlflow.jobs import JobRuns


@pytest.fixture
def attempt(task_context, defaults, mlflow_database):
    """Returns a function that does a try of one task, and a client of the MLflow that remembers it."""
    dag = new_dag()

    def execute(function=jobs.add_up, max_chain=20, executor=defaults["job_executor"], env=None, **values):
        arguments = {**defaults, "job_executor": executor, "tracker": MLflowTracker(tracking_uri=mlflow_database)}
        arguments["env"] = {**defaults["env"], **(env or {})}
        operator = NemoRunOperator(
            task_id="t", config=Config(function, **values), max_chain=max_chain, deferrable=False, **arguments
        )
        return operator.execute(task_context(dag))

    return execute, MlflowClient(mlflow_database)


def runs_of_jobs(client):
    experiments = [each.experiment_id for each in client.search_experiments()]
    return client.search_runs(experiments, "tags.`nemo_airflow.plan_digest` LIKE '%'", order_by=["start_time ASC"])


def points(client, found):
    return [(point.step, point.value) for point in client.get_metric_history(found.info.run_id, "total")]


def test_three_preemptions_are_one_try_one_run_and_one_line_of_points(attempt, root, capsys):
    execute, client = attempt
    assert execute(steps=7, warned_before=[1, 3, 5]) == {"first": 5, "total": 21}
    assert len(jobs_in(root)) == 4
    [found] = runs_of_jobs(client)
    assert (found.info.status, found.data.tags["nemo_airflow.state"]) == ("FINISHED", "succeeded")
    assert points(client, found) == [(0, 0), (1, 1), (2, 3), (3, 6), (4, 10), (5, 15), (6, 21)]
    keys = found.data.tags["nemo_airflow.attempts"].split()
    assert [key.rpartition("-")[2] for key in keys] == ["4", "3", "2", "1"]
    assert {JobRuns(client.tracking_uri).find(key).run_id for key in keys} == {found.info.run_id}
    logs = [f"nemo_airflow/{name}" for name in ("log.txt", "log_2.txt", "log_3.txt", "log_4.txt")]
    texts = [Path(client.download_artifacts(found.info.run_id, name)).read_text() for name in logs]
    assert [[int(word) for word in re.findall(r"step (\d+)", text)] for text in texts] == [[0], [1, 2], [3, 4], [5, 6]]
    assert "attempt 4 of at most 20 goes on from checkpoint 000003-" in capsys.readouterr().out


def test_a_chain_ends_at_its_limit_and_the_next_try_goes_on_with_a_run_of_its_own(attempt, root):
    execute, client = attempt
    what = {"steps": 6, "warned_before": [1, 2], "killed_before": 4}
    with pytest.raises(JobFailed) as failed:
        execute(max_chain=2, **what)
    assert failed.value.kind is FailureKind.PREEMPTED
    with pytest.raises(JobFailed, match="SIGKILL"):  # which is no preemption
        execute(max_chain=2, **what)
    assert execute(max_chain=2, **what) == {"first": 4, "total": 15}
    assert len(jobs_in(root)) == 4
    history = [points(client, each) for each in runs_of_jobs(client)]
    assert history == [[(0, 0), (1, 1)], [(2, 3), (3, 6)], [(4, 10), (5, 15)]]


def test_a_task_whose_config_is_another_begins_anew(attempt):
    execute, _ = attempt
    with pytest.raises(JobFailed):
        execute(steps=4, warned_before=[], killed_before=2)
    assert execute(steps=5, warned_before=[]) == {"first": 0, "total": 10}


@pytest.mark.usefixtures("airflow_database")
def test_an_attempt_at_its_time_limit_has_its_grace_to_save_and_a_deferred_task_goes_on(defaults, root):
    executor = LocalExecutor(root=str(root), time=3, grace=30)
    with new_dag() as dag:
        NemoRunOperator(
            task_id="t",
            config=Config(jobs.stop_when_told, times=1),
            defer_after=0,
            **{**defaults, "job_executor": executor},
        )
    states, results = run(dag)
    assert (states[("t", -1)], results[("t", -1)]) == ("success", 1)
    assert sorted([path.name.rpartition("-")[2] for path in jobs_in(root)]) == ["1", "2"]


def test_what_was_sent_while_the_job_ran_is_found_by_an_attempt_elsewhere_and_nothing_is_sent_twice(
    attempt, tmp_path, monkeypatch
):
    execute, _ = attempt
    store = tmp_path / "store"
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(store))
    first, second, third = (
        LocalExecutor(root=str(tmp_path / name), grace=1, outputs_route=str(store)) for name in ("a", "b", "c")
    )
    with pytest.raises(JobFailed) as lost:
        execute(jobs.save_and_vanish, executor=first, store=str(store), env={"UNTIL": "3", "CUT": "1"})
    assert lost.value.kind is FailureKind.LOST
    with pytest.raises(JobFailed):
        execute(jobs.save_and_vanish, executor=second, store=str(store), env={"UNTIL": "5"})
    assert execute(jobs.save_and_vanish, executor=third, store=str(store), env={"UNTIL": "0"}) == [2, 5]
    sent = [path.read_text().split() for path in sorted(tmp_path.glob("[ab]/*/checkpoints.sent"))]
    frozen = hashlib.sha256(bytes(1 << 20)).hexdigest()
    assert [frozen in each for each in sent] == [True, False]
    assert not list((store / "incoming").iterdir())


def test_a_limit_that_is_no_number_of_attempts_is_refused_where_it_is_written(attempt):
    with pytest.raises(ConfigError, match="max_chain=0 is not a number of attempts: give 1 or more"):
        attempt[0](max_chain=0, steps=1, warned_before=[])
