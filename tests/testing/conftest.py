import subprocess
import sys
import uuid

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest

TRAINER = """
from nemo_airflow.runner import log_metrics, output_dir


def train(steps: int = 2, lr: float = 0.1, text: str = "") -> dict:
    for step in range(steps):
        print("step", step)
        log_metrics({"loss": 1 / (step + 1)}, step=step)
    (output_dir() / "model.txt").write_text("weights")
    return {"steps": steps, "lr": lr}


def score(trained: dict) -> float:
    return trained["steps"] * 10.0


def fail():
    raise ValueError("no data")
"""

DAGS = """
import datetime
from airflow.sdk import DAG, task
from nemo_airflow import Config, GitArchivePackager, NemoRunOperator, SlurmExecutor, params_from
from TRAINER import fail, score, train

CODE = GitArchivePackager(subpath="dags")
TRAIN = Config(train, text="{{ ds }}")
told = []
WHERE = SlurmExecutor(ssh_conn_id="cluster", partition="gpu")

with DAG("pipeline", start_date=datetime.datetime(2026, 1, 1), params=params_from(TRAIN, "train")) as pipeline:
    trained = NemoRunOperator(
        task_id="train", config=TRAIN, params_prefix="train", packager=CODE, job_executor=WHERE, retries=3
    )
    NemoRunOperator(task_id="score", config=Config(score, trained=trained.output), packager=CODE, job_executor=WHERE)
    NemoRunOperator(
        task_id="fail", config=Config(fail), packager=CODE, job_executor=WHERE, on_failure_callback=told.append
    )

    @task.nemo(packager=CODE, job_executor=WHERE)
    def one(steps: int):
        return Config(train, steps=steps)

    one.expand(steps=[1, 2])
"""


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A git repository with DAGs for a cluster that is nowhere, and their code; the module of the DAGs."""
    folder = tmp_path_factory.mktemp("project") / "dags"
    folder.mkdir()
    suffix = uuid.uuid4().hex[:8]
    (folder / f"trainer_{suffix}.py").write_text(TRAINER)
    (folder / f"pipeline_{suffix}.py").write_text(DAGS.replace("TRAINER", f"trainer_{suffix}"))
    git = ["git", "-C", str(folder.parent), "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    sys.path.insert(0, str(folder))
    yield __import__(f"pipeline_{suffix}")
    sys.path.remove(str(folder))
