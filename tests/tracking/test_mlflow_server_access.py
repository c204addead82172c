"""Logging in to a tracking server, and what is said when it does not answer as it should."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from tracking_cases import Server, make_job, open_run

from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.connections import ConnectionInfo
from nemo_airflow.exceptions import SettingsError, TrackingError
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.address import from_connection, resolve
from nemo_airflow.tracking.mlflow.store import Credentials, open_store


class Gate:
    """Stands before a real MLflow server, and lets only those with one Authorization header pass."""

    def __init__(self, server: Server, authorization: str) -> None:
        gate = self
        self.refused = 0
        self.is_bearer = authorization.startswith("Bearer")

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Authorization") != authorization:
                    gate.refused += 1
                    status, content = 401, b"who are you?"
                else:
                    kind = {"Content-Type": self.headers.get("Content-Type") or ""}
                    real = httpx.request(self.command, server.uri + self.path, content=body, headers=kind, timeout=300)
                    status, content = real.status_code, real.content
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture(params=["login", "token"])
def gate(request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate, with a connection ``gate`` (another name for each login) that opens it."""
    basic = base64.b64encode(b"ann:s3cr3t-word").decode()
    gate = Gate(server, f"Basic {basic}" if request.param == "login" else "Bearer s3cr3t-word")
    login = "ann" if request.param == "login" else ""
    fields = {"conn_type": "mlflow", "host": "127.0.0.1", "port": gate.port, "login": login, "password": "s3cr3t-word"}
    monkeypatch.setenv(f"AIRFLOW_CONN_GATE_{gate.port}", json.dumps(fields))
    try:
        yield gate
    finally:
        gate.close()


def test_a_connection_logs_in_and_its_secret_stays_out_of_everything(
    gate: Gate, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MLflowTracker(conn_id=f"gate_{gate.port}")
    with caplog.at_level(logging.DEBUG):
        ref = open_run(tracker, make_job(f"gate-{gate.port}"))
        tracker.tag(ref, {"a": "b"})
    assert gate.refused == 0
    store = open_store(server.uri, Credentials())
    assert store.run(ref.run_id).tags["a"] == "b"
    assert ref.env == {}, "the job has no login, so it is not sent to the server"
    told = [
        json.dumps(ref.to_json()),
        json.dumps(tracker.to_json()),
        repr(tracker),
        repr(store.run(ref.run_id)),
        caplog.text,
    ]
    told.append(repr(resolve(None, f"gate_{gate.port}")))
    assert not [text for text in told if "s3cr3t" in text]


def test_the_jobs_own_mlflow_logs_in_with_a_secret_of_the_job(gate: Gate, server: Server) -> None:
    values = {"MLFLOW_TRACKING_TOKEN": "s3cr3t-word"}
    if not gate.is_bearer:
        values = {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "s3cr3t-word"}
    named = dict.fromkeys(values, "<secret of connection 'gate'>")
    ref = open_run(MLflowTracker(conn_id=f"gate_{gate.port}"), make_job(f"own-{gate.port}", secret_env=named))
    assert "s3cr3t" not in json.dumps(ref.to_json())
    code = "import mlflow\nwith mlflow.start_run() as run: mlflow.log_metric('loss', 0.5)\nprint(run.info.run_id)"
    env = {**os.environ, **ref.env, **values}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert gate.refused == 0
    tags = open_store(server.uri, Credentials()).run(done.stdout.splitlines()[-1]).tags
    assert tags["mlflow.parentRunId"] == ref.run_id


def test_a_server_that_wants_a_login_is_told_apart(gate: Gate) -> None:
    with pytest.raises(TrackingError, match=r"answered 401 .*: give a connection with a login as conn_id") as raised:
        open_run(MLflowTracker(tracking_uri=f"http://127.0.0.1:{gate.port}"), make_job("no-login"))
    assert not raised.value.transient


def test_a_wrong_login_is_named(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "wrong")
    with pytest.raises(TrackingError, match="check the login of its connection"):
        open_run(MLflowTracker(tracking_uri=f"http://127.0.0.1:{gate.port}"), make_job("wrong-login"))


def test_a_server_that_is_down_is_a_transient_error_in_one_line() -> None:
    with hold_port() as nobody:
        uri = f"http://127.0.0.1:{port_of(nobody)}"
        with pytest.raises(TrackingError, match=f"the MLflow server {uri} cannot be reached") as raised:
            open_run(MLflowTracker(tracking_uri=uri), make_job("down"))
    assert raised.value.transient
    assert "\n" not in str(raised.value)


def test_a_server_that_is_no_mlflow_is_told_apart(gate: Gate) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        with pytest.raises(TrackingError, match="did not answer in JSON: is it an MLflow server"):
            open_run(MLflowTracker(tracking_uri=f"http://127.0.0.1:{http.server_port}"), make_job("no-mlflow"))
        http.shutdown()


def connection(**fields: Any) -> ConnectionInfo:
    return ConnectionInfo(**{"conn_id": "c", "conn_type": "mlflow", "host": "mlflow.example", **fields})


@pytest.mark.parametrize(
    ("given", "address"),
    [
        (connection(), "http://mlflow.example"),
        (connection(port=5000), "http://mlflow.example:5000"),
        (connection(schema="https", port=8443, extra={"path": "/base/"}), "https://mlflow.example:8443/base"),
        (connection(conn_type="https"), "https://mlflow.example"),
        (connection(host="https://mlflow.example/base", port=8443), "https://mlflow.example:8443/base"),
        (connection(host="https://u:p@mlflow.example:1"), "https://mlflow.example:1"),
        (connection(host="::1", port=5000), "http://[::1]:5000"),
        (connection(host="sqlite:////data/m.db"), "sqlite:////data/m.db"),
    ],
)
def test_a_connection_gives_the_address(given: ConnectionInfo, address: str) -> None:
    assert from_connection(given)[0] == address


def test_a_connection_gives_the_login() -> None:
    assert from_connection(connection(login="u", password="p"))[1] == Credentials("u", "p")
    assert from_connection(connection(password="t"))[1] == Credentials(token="t")
    assert from_connection(connection(extra={"token": "t", "verify": False}))[1] == Credentials(token="t", verify=False)
    assert from_connection(connection(host="http://u:p%40@h"))[1] == Credentials("u", "p@")
    assert from_connection(connection(extra={"verify": "/ca.pem"}))[1].verify == "/ca.pem"
    with pytest.raises(SettingsError, match="connection 'c' has no host"):
        from_connection(connection(host=""))


def test_an_address_that_is_none_is_refused_before_anything_else() -> None:
    with pytest.raises(SettingsError, match="the MLflow address cannot be read"):
        MLflowTracker(tracking_uri="http://host:port")
    MLflowTracker(tracking_uri="http://{{ conn['a'] }}:{{ var.value.port }}")  # known when it is rendered


def test_a_login_in_the_environments_address_is_used_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://ann:s3cr3t@mlflow.example/x/")
    assert resolve(None, None) == ("https://mlflow.example/x", Credentials("ann", "s3cr3t"))
