"""The README's DAG runs as it stands, in a new repository, in a real Airflow."""

import re
import subprocess
from pathlib import Path

import pytest

from nemo_airflow.cli.airflow_server import AirflowServer

README = Path(__file__).parents[2] / "README.md"
TRAINER = """
import dataclasses


@dataclasses.dataclass
class Model:
    hidden: int = 8


def train(model: Model, learning_rate: float, until: str) -> dict:
    print("training until", until)
    return {"hidden": model.hidden, "learning_rate": learning_rate, "until": until}
"""


def git(folder, *arguments):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    """A new repository with the README's DAG and its code, and no .gitignore."""
    [example] = re.findall(r"^```python\n(from datetime .*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "dag.py").write_text(example)
    (folder / "trainer.py").write_text(TRAINER)
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture
def airflow(repository, tmp_path):
    server = AirflowServer(
        tmp_path / "home", repository, env={"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}, open_to_all=True
    )
    assert not {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"} & server.env.keys()
    try:
        server.start()
        yield server
    finally:
        server.stop()


def test_the_dag_of_the_readme_runs_twice_from_a_new_repository(airflow, repository):
    found = []
    for conf in ({}, {"train.model.hidden": 32, "train.learning_rate": 0.5}):
        run_id = airflow.trigger("train", conf)
        state = airflow.wait(
            lambda run_id=run_id: {"success": "success", "failed": "failed"}.get(airflow.run("train", run_id)["state"]),
            "the end of the run",
            240,
        )
        log = [record.get("event") for record in airflow.log("train", run_id, "train", 1)]
        assert state == "success", log
        assert any(str(line).startswith("training until 2") for line in log), log
        found.append(airflow.xcom("train", run_id, "train"))
        package = airflow.xcom("train", run_id, "train", "nemo_job")["package"]
        assert package["commit"] == git(repository, "rev-parse", "HEAD").strip()
        assert not package["dirty"]
    assert [(result["hidden"], result["learning_rate"]) for result in found] == [(64, 3e-4), (32, 0.5)]
    # What Airflow itself wrote there by reading the DAG is no change.
    assert git(repository, "status", "--porcelain").split() == ["??", "__pycache__/"]
