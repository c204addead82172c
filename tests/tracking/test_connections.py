"""Connections from the environment, and from Airflow where it is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from nemo_airflow import connections
from nemo_airflow.connections import ConnectionInfo, get_connection
from nemo_airflow.exceptions import SettingsError

FULL = ConnectionInfo("c", "mlflow", "host.example", 5000, "ann", "p@ss/w:rd", "https", {"token": "t", "n": {"m": 1}})


@pytest.fixture(autouse=True)
def _outside_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    # Another test of the same process may have loaded Airflow.
    monkeypatch.setattr(connections, "_inside_airflow", lambda: False)


def as_json(info: ConnectionInfo, *, extra_as_text: bool) -> str:
    extra = json.dumps(info.extra) if extra_as_text else info.extra
    fields = {"conn_type": info.conn_type, "host": info.host, "port": info.port, "login": info.login}
    return json.dumps({**fields, "password": info.password, "schema": info.schema, "extra": extra})


def as_uri(info: ConnectionInfo) -> str:
    login = f"{quote(info.login, safe='')}:{quote(info.password, safe='')}"
    extra = quote(json.dumps(info.extra), safe="")
    return f"{info.conn_type}://{login}@{info.host}:{info.port}/{info.schema}?__extra__={extra}"


@pytest.mark.parametrize("text", [as_json(FULL, extra_as_text=True), as_json(FULL, extra_as_text=False), as_uri(FULL)])
def test_a_connection_is_read_from_both_of_airflows_forms(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", text)
    assert get_connection("c") == FULL


def test_a_short_uri_leaves_the_rest_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", "my-type://host?a=b")
    assert get_connection("c") == ConnectionInfo("c", "my_type", "host", extra={"a": "b"})
    monkeypatch.setenv("AIRFLOW_CONN_C", "mlflow://https://host:1")
    assert get_connection("c") == ConnectionInfo("c", "mlflow", "https://host", 1)


def test_secrets_are_not_shown() -> None:
    assert "p@ss" not in repr(FULL)
    assert "token" not in repr(FULL)


def test_a_connection_that_is_not_defined_is_named_with_what_to_do() -> None:
    with pytest.raises(
        SettingsError, match="connection 'nope' is not defined: add it with `airflow connections add nope"
    ):
        get_connection("nope")


@pytest.mark.parametrize("text", ["{broken s3cr3t", '{"port": "s3cr3t"}', "s3cr3t", "x://h:s3cr3t/"])
def test_a_connection_that_cannot_be_read_is_named_and_not_shown(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", text)
    with pytest.raises(SettingsError, match="AIRFLOW_CONN_C is neither") as raised:
        get_connection("c")
    assert "s3cr3t" not in str(raised.value)
    assert raised.value.__cause__ is None


async def test_the_asynchronous_way_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_C", as_uri(FULL))
    assert await connections.aget_connection("c") == FULL


IN_AIRFLOW = """
import asyncio, json, os, sys
import airflow.sdk
from nemo_airflow.connections import aget_connection, get_connection, redact
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.hooks.mlflow import MLflowHook

answers = {"sync": get_connection("c").password, "async": asyncio.run(aget_connection("c")).password}
answers["extra"] = get_connection("c").extra
answers["redacted"] = redact("the password is p@ss/w:rd!")
try:
    get_connection("nope")
except SettingsError as error:
    answers["missing"] = str(error)
hook = MLflowHook(tracking_uri=os.environ["TEST_URI"])
answers["test"] = hook.test_connection()
client = hook.get_conn()
answers["experiment"] = client.get_experiment_by_name("Default").name
answers["down"] = MLflowHook("c").test_connection()
MLflowHook("c").get_conn()
answers["login"] = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
try:
    MLflowHook("other").get_conn()
except SettingsError as error:
    answers["second"] = str(error)
print("\\n" + json.dumps(answers))
"""


def test_inside_airflow_connections_and_the_hook_are_airflows(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW_CONN_C": as_uri(FULL).replace(FULL.host, "127.0.0.1").replace(":5000", ":9"),
        "AIRFLOW_CONN_OTHER": "mlflow://bob:pw@other.example",
        "TEST_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    done = subprocess.run(
        [sys.executable, "-c", IN_AIRFLOW], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.strip().splitlines()[-1])
    assert answers["sync"] == answers["async"] == FULL.password
    assert answers["extra"] == FULL.extra
    assert answers["redacted"] == "the password is ***!"
    assert answers["missing"].startswith("connection 'nope' is not defined: add it with")
    assert answers["test"] == [True, f"ok MLflow: {environment['TEST_URI']}: a run was written, and deleted"]
    assert answers["experiment"] == "Default"
    assert answers["down"][0] is False
    assert "the MLflow server https://127.0.0.1:9 cannot be reached" in answers["down"][1]
    assert answers["login"] == ["ann", FULL.password]
    assert "logged in to https://127.0.0.1:9" in answers["second"]
