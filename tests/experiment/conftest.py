import importlib
import subprocess
import sys
import uuid

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest

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
def jobs(tmp_path, notes, monkeypatch):
    """The module of jobs in a git repository, which is the current folder."""
    name = f"jobs_{uuid.uuid4().hex[:8]}"
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / f"{name}.py").write_text(JOBS)
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "jobs"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    yield importlib.import_module(name)
    sys.modules.pop(name)
