"""The kinds of MLflow store that the tests run against: a sqlite file, and real servers on sqlite and PostgreSQL."""

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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "stores(*kinds): which of sqlite, server and postgres ``uri`` is; the first two")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "uri" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("stores")
        marks = {"postgres": pytest.mark.lab}
        kinds = [pytest.param(kind, marks=marks.get(kind, ())) for kind in (marker.args if marker else _STORES[:2])]
        metafunc.parametrize("uri", kinds, indirect=True)


_STORES = ("sqlite", "server", "postgres")


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


@pytest.fixture(scope="session")
def server_on_postgres(tmp_path_factory: pytest.TempPathFactory, lab_postgres: str) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow-on-postgres"), lab_postgres)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    """Address of a store, once of each kind; see the mark ``stores``."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("database"))
    name = "server" if request.param == "server" else "server_on_postgres"
    return str(request.getfixturevalue(name).uri)


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
