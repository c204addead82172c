"""The two kinds of MLflow store that the tests run against: a sqlite file, and a real server on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracking_cases import Server, make_job, open_run

from nemo_airflow.job import Job
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Credentials, Store, open_store

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What one test leaves in the spool is not delivered by another."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow-server"))
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow-sqlite') / 'mlflow.db'}"


@pytest.fixture(params=["sqlite", "server"])
def uri(request: pytest.FixtureRequest) -> str:
    """Address of a store, once of each kind."""
    return request.getfixturevalue("server").uri if request.param == "server" else request.getfixturevalue("database")


@pytest.fixture
def tracker(uri: str) -> MLflowTracker:
    return MLflowTracker(tracking_uri=uri)


@pytest.fixture
def store(uri: str) -> Store:
    return open_store(uri, Credentials())


@pytest.fixture
def job(request: pytest.FixtureRequest) -> Job:
    return make_job(request.node.name)


@pytest.fixture
def opened(tracker: MLflowTracker, job: Job) -> RunRef:
    return open_run(tracker, job)
