"""The README's DAG runs as it stands, in a new repository, in a real Airflow."""

from shared_airflow import git


def test_the_dag_of_the_readme_runs_twice_from_a_new_repository(airflow_server, readme_repository, end_of):
    assert not {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} & airflow_server.env.keys()
    found = []
    for conf in ({}, {"train.model.hidden": 32, "train.learning_rate": 0.5}):
        run_id = airflow_server.trigger("train", conf)
        state = end_of("train", run_id)
        log = [record.get("event") for record in airflow_server.log("train", run_id, "train", 1)]
        assert state == "success", log
        assert any(str(line).startswith("training until 2") for line in log), log
        found.append(airflow_server.xcom("train", run_id, "train"))
        package = airflow_server.xcom("train", run_id, "train", "nemo_job")["package"]
        assert package["commit"] == git(readme_repository, "rev-parse", "HEAD").strip()
        assert not package["dirty"]
    assert [(result["hidden"], result["learning_rate"]) for result in found] == [(64, 3e-4), (32, 0.5)]
    # What Airflow itself wrote there by reading the DAG is no change.
    assert git(readme_repository, "status", "--porcelain").split() == ["??", "__pycache__/"]
