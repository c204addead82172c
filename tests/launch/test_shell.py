"""Commands run in the environment of a running job: on each back-end, with its exit code, and with a terminal."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios

import pytest
import yaml
from test_launch import newest, until

from nemo_airflow.cli import main
from nemo_airflow.job import JobState
from nemo_airflow.launch.following import status_of


@pytest.fixture
def start(project, tmp_path, capfd):
    """Starts a job that runs until the test has ended; returns its key."""
    begun = []

    def run(where):
        (tmp_path / "executor.yaml").write_text(yaml.safe_dump({**where, "env": {"MARK": "here it is"}}))
        arguments = ["run", f"{project}:small", "gate=/never", "--executor", str(tmp_path / "executor.yaml")]
        assert main([*arguments, "--detach", "--no-track"]) == 0
        begun.append(capfd.readouterr().out.strip())
        until(lambda: status_of(newest()).state is JobState.RUNNING, "start")
        return begun[0]

    yield run
    for key in begun:
        main(["cancel", key])


def check_shell(key, capfd):
    show = 'echo "$NEMO_AIRFLOW_KEY $MARK"; pwd; ls *.py; echo oh >&2; exit 7'
    assert main(["shell", key, "--", "sh", "-c", show]) == 7
    out, err = capfd.readouterr()
    said, folder, *code = out.splitlines()
    assert said == f"{key} here it is"
    assert folder.endswith("/work")
    assert len(code) == 1  # the job's own code
    # srun tells of the exit code as well, sometimes after the command's own lines.
    assert [line for line in err.splitlines() if not line.startswith("srun: ")][-1] == "oh"


def test_a_command_runs_in_the_folder_and_environment_of_a_local_job(start, project, capfd):
    key = start({"kind": "local"})
    check_shell(key, capfd)
    imported = f"import {project}, nemo_airflow.runner; print({project}.small.steps)"
    assert main(["shell", "last", "--", "python", "-c", imported]) == 0
    assert capfd.readouterr().out == "3\n"
    assert main(["shell", key, "--", "no-such-program"]) == 126
    assert "nemo-airflow: no-such-program: No such file or directory" in capfd.readouterr().err


def test_a_shell_has_the_terminal_with_its_size_its_keys_and_its_exit_code(start, lab_docker, lab_image):
    key = start({"kind": "docker", "container_image": lab_image, "docker_url": lab_docker})
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    command = [sys.executable, "-m", "nemo_airflow.cli", "shell", key, "--", "sh"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    shown = b""

    def shows(text):
        nonlocal shown
        while select.select([ours], [], [], 0)[0]:
            shown += os.read(ours, 10000)
        return text in shown

    until(lambda: shows(b"# "), "prompt")
    os.write(ours, b"stty size; echo of $NEMO_AIRFLOW_KEY; sleep 100 || echo interrupted\n")
    until(lambda: shows(f"33 101\r\nof {key}\r\n".encode()), "size of the terminal")
    os.write(ours, b"\x03")
    until(lambda: shows(b"^C"), "end of sleep")
    os.write(ours, b"exit 5\n")
    assert process.wait(300) == 5


def test_a_command_runs_in_a_container(start, capfd, lab_docker, lab_image):
    check_shell(start({"kind": "docker", "container_image": lab_image, "docker_url": lab_docker}), capfd)


def test_a_command_runs_in_a_pod(start, capfd, lab_kubeconfig, lab_image):
    where = {"kind": "kubernetes", "container_image": lab_image, "config_file": lab_kubeconfig, "linger": 1.0}
    check_shell(start(where), capfd)


def test_a_command_runs_beside_a_slurm_job_on_its_node(start, capfd, ssh_conn_id, lab_slurm):
    check_shell(start({"kind": "slurm", "ssh_conn_id": ssh_conn_id, "root": "~/launched"}), capfd)


def test_a_command_runs_beside_a_job_over_ssh(start, capfd, ssh_conn_id):
    check_shell(start({"kind": "ssh", "ssh_conn_id": ssh_conn_id, "root": "~/launched"}), capfd)


def test_a_job_that_has_ended_and_a_back_end_without_a_way_in_are_said_plainly(project, capfd):
    assert main(["run", f"{project}:small", "--no-track"]) == 0
    assert main(["shell", "last"]) == 2
    assert "has ended: it is succeeded" in capfd.readouterr().err
