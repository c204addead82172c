"""What one process of a job of several has written is read by itself."""

import pytest
import yaml
from test_launch import newest, until

from nemo_airflow.cli import main
from nemo_airflow.launch.records import Records

JOB = """
import os

from nemo_airflow import Config


def say():
    print("this is", os.environ.get("NODE_RANK"), os.environ.get("RANK"), flush=True)


spread = Config(say)
"""


@pytest.fixture
def run(project, tmp_path, capsys):
    def start(where, code=0):
        with open(f"{project}.py", "w") as file:
            file.write(JOB)
        (tmp_path / "executor.yaml").write_text(yaml.safe_dump(where))
        arguments = ["run", f"{project}:spread", "--executor", str(tmp_path / "executor.yaml"), "--no-track"]
        assert main(arguments) == code
        capsys.readouterr()

    return start


def lines_of(rank, capsys):
    assert main(["logs", "last", "--rank", str(rank)]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_lines_of_one_process_of_a_machine_are_told_apart(run, capsys):
    run({"kind": "local", "ntasks_per_node": 2})
    assert [lines_of(rank, capsys) for rank in (0, 1)] == [["this is 0 0"], ["this is 0 1"]]
    assert main(["logs", "last", "--rank", "2"]) == 2
    assert "has 2 processes: --rank 0 to 1" in capsys.readouterr().err
    where = "kind: local\nntasks_per_node: 2"  # as for a job that a task has submitted
    assert main(["logs", newest().key, "--executor", where, "--rank", "1"]) == 0
    assert capsys.readouterr().out == "this is 0 1\n"
    assert main(["logs", newest().key, "--executor", "local", "-f"]) == 2
    assert "with --executor a log is printed as far as it has come" in capsys.readouterr().err
    records = Records()
    where = {**newest().executor, "launcher": {"kind": "torchrun"}}
    records.change(newest().key, executor=where)
    assert main(["logs", "last", "--rank", "1"]) == 2
    assert "does not say which process has written a line" in capsys.readouterr().err


def test_the_lines_of_a_process_of_a_slurm_job_are_told_apart(run, capsys, ssh_conn_id, lab_slurm):
    run({"kind": "slurm", "ssh_conn_id": ssh_conn_id, "root": "~/launched", "ntasks_per_node": 2})
    assert [line.split()[-1] for rank in (0, 1) for line in lines_of(rank, capsys)] == ["0", "1"]


def test_the_log_of_each_pod_of_a_job_is_read(run, capsys, lab_kubeconfig, lab_image):
    where = {"kind": "kubernetes", "container_image": lab_image, "config_file": lab_kubeconfig, "linger": 1.0}
    run({**where, "nodes": 2})
    assert [lines_of(rank, capsys)[0].split()[2] for rank in (0, 1)] == ["0", "1"]
    assert until(lambda: newest().outcome, "end")
