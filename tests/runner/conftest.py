"""Starts jobs as a back-end does: a program, a folder, and nothing installed."""

import os
import subprocess
import sys

import pytest
from runner_cases import JOBS, Ran

from nemo_airflow.executors import shipping
from nemo_airflow.job import Job


@pytest.fixture
def folder(tmp_path):
    work = tmp_path / "job" / "work"
    work.mkdir(parents=True)
    (work / "jobs.py").write_text(JOBS)
    return tmp_path / "job"


@pytest.fixture(scope="session")
def runner(tmp_path_factory):
    return shipping.install_runner(tmp_path_factory.mktemp("runner")) / shipping.ENTRY


@pytest.fixture
def start(folder, runner):
    started = []

    def start_job(function, *, code=None, python=sys.executable, package=None, env=None, **options):
        if code is not None:
            (folder / "work" / "jobs.py").write_text(code)
        stdout = options.pop("stdout", subprocess.PIPE)
        arguments = options.pop("arguments", {})
        fields = {"grace": 1.0, **options}
        root = {"_target_": function if ":" in function else f"jobs:{function}", **arguments}
        job = Job(key="k", name="n", plan={"version": 1, "root": root}, allow=("jobs.",), package=package, **fields)
        (folder / "job.json").write_text(job.dumps())
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})}
        process = subprocess.Popen(
            [python, str(runner), str(folder)], stdout=stdout, stderr=subprocess.STDOUT, env=env, cwd=folder
        )
        started.append(process)
        return process

    yield start_job
    for process in started:  # of a test that failed
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture
def run(start, folder):
    def run_job(function, **options):
        process = start(function, **options)
        stream, _ = process.communicate(timeout=300)
        return Ran(process.returncode, stream, folder)

    return run_job


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB of its own; needs the right to mount one, as in the lab."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "nemo-airflow-test", disk], check=True)
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)
