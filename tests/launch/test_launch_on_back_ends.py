"""The same command runs a config on each back-end of the lab, and none of its jobs is an orphan."""

import json
import re
import subprocess
import sys
import time

import mlflow
import pytest
import yaml
from test_launch import until

from nemo_airflow.cli import main
from nemo_airflow.launch.records import Records


@pytest.fixture
def docker(lab_docker, lab_image):
    return {"kind": "docker", "container_image": lab_image, "docker_url": lab_docker}


@pytest.fixture
def slurm(ssh_conn_id, lab_slurm):
    return {"kind": "slurm", "ssh_conn_id": ssh_conn_id, "root": "~/launched"}


@pytest.fixture
def kubernetes(lab_kubeconfig, lab_image):
    return {"kind": "kubernetes", "container_image": lab_image, "config_file": lab_kubeconfig, "linger": 30.0}


def check_launch(project, where, tmp_path, capsys):
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(where))
    executor = str(tmp_path / "executor.yaml")
    assert main(["run", f"{project}:small", "gate=go", "--executor", executor, "--detach"]) == 0
    key = capsys.readouterr().out.strip()
    assert main(["jobs", "--executor", executor, "-o", "json"]) == 0
    [row] = [row for row in json.loads(capsys.readouterr().out) if row["key"] == key]
    assert row["state"] in ("pending", "running")
    assert main(["status", key, "--executor", executor, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == Records().load(key).job.id
    until(lambda: main(["shell", key, "--", "touch", "go"]) == 0, "running job")  # which waits for that until then
    capsys.readouterr()
    assert main(["attach", key]) == 0  # beside the process in the background, or in its place
    out, err = capsys.readouterr()
    assert out.splitlines() == ["step 0", "step 1", "step 2"]
    assert "returned {'steps': 3}" in err
    end = time.monotonic() + 300
    while Records().load(key).end is None and time.monotonic() < end:
        time.sleep(0.1)
    assert Records().load(key).end.succeeded


def test_a_config_runs_in_a_container_by_one_command(project, docker, tmp_path, capsys):
    check_launch(project, docker, tmp_path, capsys)


def test_a_config_runs_on_slurm_by_one_command(project, slurm, tmp_path, capsys):
    check_launch(project, slurm, tmp_path, capsys)


def test_a_config_runs_in_a_pod_by_one_command(project, kubernetes, tmp_path, capsys):
    check_launch(project, kubernetes, tmp_path, capsys)


@pytest.mark.parametrize("command", [["jobs", "-o", "json", "--executor"], ["reap", "--dry-run"]])
def test_the_output_of_a_fresh_process_has_no_line_of_a_library(project, slurm, airflow_database, tmp_path, command):
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(slurm))
    arguments = [sys.executable, "-m", "nemo_airflow.cli", *command, str(tmp_path / "executor.yaml")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    if command[0] == "jobs":
        assert isinstance(json.loads(done.stdout), list)
    else:
        assert done.stdout.splitlines()[-1].endswith("found")
    assert "asyncssh" not in done.stdout + done.stderr


def test_a_launched_job_is_no_orphan_of_a_task(project, docker, airflow_database, tmp_path, capsys):
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(docker))
    executor = str(tmp_path / "executor.yaml")
    assert main(["run", f"{project}:small", "gate=never", "--executor", executor, "--detach", "--no-track"]) == 0
    key = capsys.readouterr().out.strip()
    assert main(["reap", executor, "--dry-run", "--min-age", "0"]) == 0
    assert key not in capsys.readouterr().out
    assert main(["cancel", key]) == 0


def test_a_dry_run_says_when_slurm_would_start_the_job(project, slurm, tmp_path, capsys):
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(slurm))
    assert main(["run", f"{project}:small", "--dry-run", "--executor", str(tmp_path / "executor.yaml")]) == 0
    assert re.search(r"^# Job \d+ to start at \d{4}-\d\d-\d\dT", capsys.readouterr().out, re.MULTILINE)
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump({**slurm, "partition": "nowhere"}))
    assert main(["run", f"{project}:small", "--dry-run", "--executor", str(tmp_path / "executor.yaml")]) == 0
    assert "# allocation failure: Invalid partition name specified" in capsys.readouterr().out
    assert not Records().list()


def test_the_run_of_a_job_that_slurm_refuses_ends_with_the_reason(project, slurm, tmp_path, capsys):
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump({**slurm, "partition": "nowhere"}))
    assert main(["run", f"{project}:small", "--executor", str(tmp_path / "executor.yaml")]) != 0
    assert "Invalid partition name" in capsys.readouterr().err
    [record] = Records().list()
    run = mlflow.MlflowClient(record.tracked.ref.uri).get_run(record.tracked.ref.run_id)
    assert (run.info.status, run.data.tags["nemo_airflow.state"]) == ("FAILED", "failed")
    assert "Invalid partition name" in run.data.tags["nemo_airflow.error"]
