"""The samples and points of all nodes of a job are in the stream of its first one, whoever reports on the others."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest
from runner_cases import JOBS, Ran

from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.job import Job

JOB = (
    JOBS
    + """
def until(path):
    while not pathlib.Path(path).exists():
        time.sleep(0.02)

def become_another_program(path):
    os.execvp("sh", ["sh", "-c", 'until [ -e "$0" ]; do sleep 0.02; done', path])

def log_points(path, count=3000):
    import nemo_airflow
    for step in range(count):
        nemo_airflow.log_metric("loss", 1 / (step + 1), step)
    until(path)

def without_children():
    try:
        os.wait()
    except ChildProcessError:
        return "no child"
"""
)


@pytest.fixture
def node(tmp_path, runner):
    """Starts what runs on one node of a job of two, as a back-end does; each node has a folder of its own."""
    holder = hold_port()
    started = []
    meeting = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port_of(holder)), "NNODES": "2"}

    def start(folder, *arguments, function="until", **env):
        (tmp_path / folder / "work").mkdir(parents=True)
        (tmp_path / folder / "work" / "jobs.py").write_text(JOB)
        given = {} if function == "without_children" else {"path": str(tmp_path / "end")}
        root = {"_target_": f"jobs:{function}", **given}
        job = Job("k", "n", {"version": 1, "root": root}, allow=("jobs.",), grace=1.0, sample_interval=0.1)
        (tmp_path / folder / "job.json").write_text(job.dumps())
        command = [sys.executable, str(runner), *arguments, str(tmp_path / folder)]
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **meeting, **env}
        log = (tmp_path / folder / "log").open("wb")
        with log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, cwd=tmp_path / folder)
        started.append(process)
        return process

    start.port = port_of(holder)
    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
    holder.close()


def samples(tmp_path, folder="first"):
    return Ran(0, (tmp_path / folder / "log").read_bytes(), tmp_path / folder).records("sample")


def wait_for_nodes(tmp_path, nodes):
    deadline = time.monotonic() + 300
    while {sample.get("node") for sample in samples(tmp_path)} != nodes:
        assert time.monotonic() < deadline, (tmp_path / "first" / "log").read_text()
        time.sleep(0.1)


OTHERS = {
    "a-supervisor-on-each-node": ((), {"NODE_RANK": "1"}),
    "processes-that-slurm-starts": (
        ("--rank",),
        {"NODE_RANK": "0", "SLURM_NODEID": "1", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"},
    ),
}


@pytest.mark.parametrize("function", ["until", "become_another_program"])
@pytest.mark.parametrize(("arguments", "env"), OTHERS.values(), ids=OTHERS)
def test_the_first_node_has_the_samples_of_all(node, tmp_path, arguments, env, function):
    first = node("first", function=function, NODE_RANK="0")
    other = node("other", *arguments, function=function, **env)
    wait_for_nodes(tmp_path, {0, 1})
    (tmp_path / "end").touch()
    assert (first.wait(300), other.wait(300)) == (0, 0)
    of_other = [sample["values"] for sample in samples(tmp_path) if sample["node"] == 1]
    assert {"rss_bytes", "cpu_utilization_percentage", "system_memory_usage_percentage"} <= set(of_other[0])
    assert max(values.get("rss_bytes", 0) for values in of_other) > 1 << 20


def points_of(tmp_path, name):
    records = Ran(0, (tmp_path / "first" / "log").read_bytes(), tmp_path / "first").records("metrics")
    return [step for record in records for found, _, step, _ in record["points"] if found == name]


def wait_for_points(tmp_path, name, count):
    deadline = time.monotonic() + 300
    while len(points_of(tmp_path, name)) < count:
        assert time.monotonic() < deadline, (tmp_path / "first" / "log").read_text()[-2000:]
        time.sleep(0.2)


def test_points_of_another_node_arrive_once_each_also_where_the_first_one_begins_later(node, tmp_path):
    other = node("other", function="log_points", NODE_RANK="1")
    deadline = time.monotonic() + 300
    while b'"loss",' not in (tmp_path / "other" / "log").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    first = node("first", function="log_points", NODE_RANK="0")
    wait_for_points(tmp_path, "node_1/loss", 3000)
    (tmp_path / "end").touch()
    assert (first.wait(300), other.wait(300)) == (0, 0)
    assert sorted(points_of(tmp_path, "node_1/loss")) == list(range(3000))
    assert sorted(points_of(tmp_path, "loss")) == list(range(3000))


def test_points_that_find_no_first_node_are_counted_in_a_warning(node, tmp_path):
    other = node("other", function="log_points", NODE_RANK="1")
    (tmp_path / "end").touch()
    assert other.wait(300) == 0
    warnings = Ran(0, (tmp_path / "other" / "log").read_bytes(), tmp_path / "other").records("warning")
    assert [each["message"] for each in warnings] == ["3000 points did not arrive at the job's first node"]


def test_what_is_not_signed_by_the_job_is_not_recorded(node, tmp_path):
    node("first", NODE_RANK="0")
    wait_for_nodes(tmp_path, {0})
    sample = json.dumps({"node": 1, "values": {"cpu_percent": 1.0}}).encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"", b"x", sample, bytes(32) + sample):
            sender.sendto(data, ("127.0.0.1", node.port))
    node("other", NODE_RANK="1")
    wait_for_nodes(tmp_path, {0, 1})
    assert {"cpu_percent": 1.0} not in [sample["values"] for sample in samples(tmp_path)]


def test_what_samples_another_node_is_no_child_of_the_jobs_code_and_ends_with_it(node, tmp_path):
    rank = node("other", "--rank", function="without_children", SLURM_NODEID="1", SLURM_LOCALID="0", SLURM_PROCID="1")
    assert rank.wait(300) == 0
    assert json.loads((tmp_path / "other" / "ranks" / "1.json").read_text())["result"] == "no child"
    deadline = time.monotonic() + 10
    while left := subprocess.run(["pgrep", "-f", str(tmp_path / "other")], capture_output=True, text=True).stdout:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
