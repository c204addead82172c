"""What Ray's supervisor writes into a job's log is not amid the job's stream, however late it comes."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from ray.dashboard.modules.job.job_supervisor import JobSupervisor

from nemo_airflow.executors.ray import start

SLOW = 1.0
"""Seconds that the supervisor takes, after it has started the job, to close the log."""


def test_line_that_ray_writes_late_is_not_in_the_stream(tmp_path, monkeypatch):
    slow = os.getpgid

    def getpgid(process):
        time.sleep(SLOW)
        return slow(process)

    monkeypatch.setattr(os, "getpgid", getpgid)  # between the start of the job and the end of the log
    log = tmp_path / "job-driver-key.log"
    log.write_text("what the set-up of the runtime environment has written\n")
    code = "import start; start._begin_log(); print('first', flush=True)"
    supervisor = SimpleNamespace(_job_id="key", _entrypoint=f"exec {sys.executable} -c {shlex.quote(code)}")
    env = {**os.environ, "PYTHONPATH": str(Path(start.__file__).parent)}
    job = JobSupervisor._exec_entrypoint(supervisor, env, str(log))
    assert job.wait(300) == 0
    assert log.read_text() == "first\n"


def test_log_that_its_parent_never_closes_is_begun_after_a_while(tmp_path):
    code = """
import start, time
start._LATE = 0.5
began = time.monotonic()
start._begin_log()
assert 0.4 < time.monotonic() - began < 20
"""
    env = {**os.environ, "PYTHONPATH": str(Path(start.__file__).parent)}
    with (tmp_path / "log").open("w") as log:
        log.write("a line of another")
        log.flush()
        subprocess.run([sys.executable, "-c", code], env=env, stdout=log, check=True, timeout=300)
    assert (tmp_path / "log").read_text() == ""
