"""Secrets of a job: they reach it, and are in nothing that comes back or is shown."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_airflow import blocking
from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Cursor, Driver, Executor
from nemo_airflow.executors.secret import Secret
from nemo_airflow.job import Job
from nemo_airflow.testing.conformance.base import ConformanceCases

TOKEN = 'S3cr3t/t0ken "$HOME" \\ pip|ed'
"""With characters that a shell, JSON, Python and an address each write in their own way."""

KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
PARTS = ("S3cr3t", "t0ken", "pip|ed", "MIIEvQIBADANBgkqhkiG9w0B", "QEFAASCBKcwggSjAgEAAoIB")


class SecretCases(ConformanceCases):
    """A secret is in the job, and nowhere else."""

    def test_a_secret_reaches_the_job_and_is_nowhere_else(
        self, executor: Executor, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        secrets = {"TOKEN": Secret(conn_id="hf"), "KEY": Secret(variable="key")}
        if not executor.takes_secrets:
            with pytest.raises(ExecutorArgumentError, match="secrets"):
                dataclasses.replace(executor, secrets=secrets)
            return
        given = dataclasses.replace(executor, secrets=secrets)
        driver = given.connect()
        try:
            request = dataclasses.replace(given.render(make("tell_secrets")), values={"TOKEN": TOKEN, "KEY": KEY})
            shown = request.to_text() + repr(request)
            assert "# secret TOKEN=<secret of connection 'hf'>" in request.to_text()
            handle = blocking.run(driver.submit(request), self.timeout)
            finished = self.follow(given, handle)
            assert finished.outcome.succeeded, finished
            assert finished.outcome.result == {
                "digests": {
                    "TOKEN": hashlib.sha256(TOKEN.encode()).hexdigest(),
                    "KEY": hashlib.sha256(KEY.encode()).hexdigest(),
                },
                "TOKEN": "***",
            }
            assert finished.lines[:2] == ["the token is ***", "*** slowly"]
            shown += self._stream(driver, Cursor(handle)) + repr(finished)
            kept = self.collect(driver, handle, tmp_path)
            shown += "".join((tmp_path / path).read_text(errors="replace") for path in kept)
            assert [part for part in PARTS if part in shown] == []
        finally:
            blocking.run(driver.close())

    def _stream(self, driver: Driver, cursor: Cursor) -> str:
        data = b"".join(chunk.data for chunk in blocking.run(driver.read([cursor])))
        assert data
        return data.decode(errors="replace")
