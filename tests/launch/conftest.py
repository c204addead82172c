import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest
from job_repository import make_repository

JOBS = """
import os
import time
from pathlib import Path

from nemo_airflow import Config
from nemo_airflow.runner import log_metrics, output_dir


def train(steps: int = 3, lr: float = 0.1, pause: float = 0.0, gate: str = "", weights: int = 1) -> dict:
    for step in range(steps):
        print("step", step, flush=True)
        log_metrics({"loss": 1 / (step + 1)}, step=step)
        time.sleep(pause)
    while gate and not Path(gate).exists():
        time.sleep(0.05)
    Path(output_dir(), "model.txt").write_text("weights" * weights)
    return {"steps": steps}


def traced() -> None:
    print("trace", os.environ.get("TRACEPARENT"))


def fail():
    raise ValueError("no data")


small = Config(train, steps=3)
bad = Config(fail)
dated = Config(train, gate="{{ ds }}")
"""


@pytest.fixture
def project(tmp_path, monkeypatch, new_mlflow):
    """A git repository with a module of jobs, as the current folder; its name is that of the module."""
    new_mlflow(tmp_path / "home" / "mlflow.db")
    return make_repository(tmp_path, monkeypatch, JOBS)
