"""The maintenance DAG, on a real Airflow."""

from nemo_airflow import LocalExecutor, blocking
from nemo_airflow.installation import run_labels
from nemo_airflow.job import Job, JobState
from nemo_airflow.testing.services import service_of

DAG = "end_orphans"


def finished(server, run_id):
    state = server.wait(lambda: (s := server.run(DAG, run_id)["state"]) in ("success", "failed") and s, run_id)
    assert state == "success", server.log(DAG, run_id, "end_orphans", 1)
    return server.xcom(DAG, run_id, "end_orphans")


def test_job_of_an_ended_task_is_ended(airflow_server, monkeypatch):
    first = airflow_server.trigger(DAG)
    assert finished(airflow_server, first) == []
    run = airflow_server.run(DAG, first)
    labels = {"dag_id": DAG, "run_id": first, "task_id": "end_orphans", "map_index": "-1"}
    for name in ("AIRFLOW_HOME", "AIRFLOW__API__BASE_URL"):  # as in a worker there
        monkeypatch.setenv(name, airflow_server.env[name])
    labels |= run_labels(run["run_after"].replace("T", " ").replace("Z", "+00:00"))
    executor = LocalExecutor(root=str(airflow_server.home / "nemo" / "jobs"), grace=1)
    plan = {"version": 1, "root": {"_target_": "time:sleep", "_args_": [600]}}
    job = Job(key="orphan", name="sleep", plan=plan, allow=("time:sleep",), labels=labels)
    driver = executor.connect()
    handle = blocking.run(driver.submit(executor.render(job)))

    def state():
        return blocking.run(service_of(driver).status([handle]))["orphan"].state

    try:
        [seen] = finished(airflow_server, airflow_server.trigger(DAG, {"cancel": False, "min_age": 0}))
        assert f"orphan: {DAG}.{first}.end_orphans is success" in seen
        assert state() is JobState.RUNNING
        assert finished(airflow_server, airflow_server.trigger(DAG)) == [], "it is too young"
        finished(airflow_server, airflow_server.trigger(DAG, {"min_age": 0}))
        airflow_server.wait(lambda: state() is JobState.CANCELLED, "the end of the orphan")
    finally:
        blocking.run(driver.cancel([handle]))
