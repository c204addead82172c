"""What the operator's tests share."""

from pathlib import Path

import pytest

from nemo_airflow import LocalExecutor


@pytest.fixture
def root(tmp_path):
    return tmp_path / "jobs"


@pytest.fixture
def defaults(root):
    """Arguments of a task whose job runs here, with the tests' code, and is not tracked."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return {"job_executor": LocalExecutor(root=str(root), grace=1), "tracker": None, "env": env}
