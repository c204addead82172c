import importlib
import sys

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest
from job_repository import make_repository

JOBS = """
import os
import time
from pathlib import Path

from nemo_airflow.runner import log_metric

VERSION = 1


def note(name: str = "", gate: str = "", fails: bool = False) -> str:
    with open(os.environ["NOTES"], "a") as file:
        file.write(name + "\\n")
    print("begun", name, flush=True)
    while gate and not Path(gate).exists():
        time.sleep(0.05)
    if fails:
        raise ValueError(f"no data for {name}")
    return f"{name} {os.environ.get('MARK', VERSION)}"


def measure(value: float) -> int:
    log_metric("value", value)
    return VERSION
"""


@pytest.fixture
def notes(tmp_path):
    """A file in which each job notes its name when it begins."""
    return tmp_path / "notes"


@pytest.fixture
def jobs(tmp_path, notes, monkeypatch, mlflow_database):
    """The module of jobs in a git repository, which is the current folder."""
    name = make_repository(tmp_path, monkeypatch, JOBS)
    monkeypatch.syspath_prepend(tmp_path / "project")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    yield importlib.import_module(name)
    sys.modules.pop(name)
