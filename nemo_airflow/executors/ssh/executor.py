"""Runs jobs as processes of a host that is reached by SSH, with nothing else there but Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import ClassVar

from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.host import folders
from nemo_airflow.job import Job


@dataclasses.dataclass(frozen=True, kw_only=True)
class SSHExecutor(Executor):
    """Runs a job as a process of a host, in its own session and folder; it outlives the connection.

    Attributes:
        ssh_conn_id: Id of an Airflow connection of type ``ssh``. Host keys are checked.
        root: Folder on the host for packages and jobs; ``~`` is the user's home.
        python: The job's interpreter there, Python 3.9 or newer.
        setup_lines: Shell lines to run before it, by bash where the host has it: ``source .../activate`` ... One that
            fails fails the job; one that may fail ends with ``|| true``. The shell is no login shell: ``module`` needs
            ``source /etc/profile`` first.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    kind: ClassVar[str] = "ssh"
    takes_secrets: ClassVar[bool] = True
    keeps_attempts_together: ClassVar[bool] = True

    ssh_conn_id: str = "ssh_default"
    root: str = "~/.nemo_airflow"
    python: str = "python3"
    setup_lines: str | None = None
    ttl: float | None = 86400.0

    @property
    def zstd_mark(self) -> str:
        """See :attr:`Executor.zstd_mark`: the interpreter, and the lines before it."""
        return folders.zstd_mark(self.python, self.setup_lines)

    def render(self, job: Job) -> Request:
        """Returns the start script, and the other files of the job's folder."""
        job = self.prepare(job)
        start = folders.start_lines(self.setup_lines, self.python, self.zstd_mark)
        script = f"#!/bin/sh\nexport NEMO_AIRFLOW_KEY={job.key}\n{start}"
        return Request(
            key=job.key,
            kind=self.kind,
            payload={"host": self.ssh_conn_id, "folder": f"{self.root}/jobs/{job.key}", "run": f"bash {folders.START}"},
            files=folders.job_files(job, script, self.ttl),
            package=job.package,
            secrets=job.secret_env,
            inputs=job.inputs,
        )

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one host."""
        return (self.kind, self.ssh_conn_id, self.root)

    def connect(self) -> Driver:
        """Returns a driver; it connects when first used."""
        from nemo_airflow.executors.ssh.driver import SSHDriver

        return SSHDriver(self.ssh_conn_id, self.root)
