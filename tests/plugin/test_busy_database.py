"""A database of Airflow that is locked is waited for, and then said in one line."""

import sqlite3

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, text

from nemo_airflow.cli.airflow_server import AirflowServer
from nemo_airflow.plugin.app import make_app


@pytest.fixture
def locked(tmp_path):
    """The path of a database in which another process writes."""
    other = sqlite3.connect(tmp_path / "locked.db", isolation_level=None)
    other.execute("CREATE TABLE log (entry)")
    other.execute("BEGIN EXCLUSIVE")
    yield tmp_path / "locked.db"
    other.close()


def test_a_database_that_is_locked_is_no_error_of_the_server(locked, caplog):
    own = make_app()
    engine = create_engine(f"sqlite:///{locked}?timeout=0.1")

    @own.post("/start")
    def start():
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO log VALUES (:entry)"), {"entry": "a secret"})

    answer = TestClient(own).post("/start")
    assert answer.status_code == 503
    assert answer.json() == {"detail": "Airflow's database does not answer just now: try again."}
    assert "database is locked" in caplog.text
    assert "a secret" not in caplog.text


def test_our_airflow_waits_for_its_database(tmp_path):
    server = AirflowServer(tmp_path, tmp_path)
    server.airflow_home.mkdir()
    with create_engine(server.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]).connect() as connection:
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 60_000
