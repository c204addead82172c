"""Time limits, keys and the registry: the pure parts around executors."""

import dataclasses
import json

import pytest

from nemo_airflow import (
    DockerExecutor,
    KubernetesExecutor,
    LocalExecutor,
    RayExecutor,
    SkypilotExecutor,
    SlurmExecutor,
    SSHExecutor,
)
from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors import executor_from_json, parse_time
from nemo_airflow.job import Job, Package
from nemo_airflow.keys import KEY_LENGTH, job_key


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        ("30", 1800.0),
        ("30:15", 1815.0),
        ("1:02:03", 3723.0),
        ("2-03", 183600.0),
        ("2-03:04", 183840.0),
        ("2-03:04:05", 183845.0),
        (None, None),
    ],
)
def test_time_limits_are_read_as_slurm_reads_them(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["soon", "", "1:2:3:4", "-5", 0, -1, "1-", "1:x"])
def test_bad_time_limit_is_named(text):
    with pytest.raises(ExecutorError, match="time="):
        parse_time(text)


def test_key_is_the_same_for_the_same_identity_and_another_for_another():
    identity = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": "-1"}
    key = job_key(identity, name="d-t", attempt=1)
    assert key == job_key(dict(reversed(identity.items())), name="d-t", attempt=1)
    others = {job_key({**identity, name: "other"}, name="d-t", attempt=1) for name in identity}
    others.add(job_key(identity, name="d-t", attempt=2))
    assert len(others | {key}) == len(identity) + 2


@pytest.mark.parametrize("name", ["Train the Model_v2!", "9 lives", "ünï", "", "x" * 300, "-dash-"])
def test_key_can_name_a_pod(name):
    key = job_key({"name": name}, name=name, attempt=123)
    assert len(key) <= KEY_LENGTH
    assert key[0].isalpha()
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not key.endswith("-")


@pytest.mark.parametrize(
    "executor",
    [
        LocalExecutor(),
        DockerExecutor(container_image="image"),
        KubernetesExecutor(container_image="image"),
        RayExecutor(address="http://127.0.0.1:8265"),
        SSHExecutor(ssh_conn_id="host"),
        SkypilotExecutor(),
        SlurmExecutor(ssh_conn_id="host"),
    ],
    ids=lambda executor: executor.kind,
)
def test_no_patch_is_sent_to_a_back_end(executor):
    package = Package("d" * 64, dirty=True, patch="+ a line that no job needs\n")
    plan = {"version": 1, "root": {"_target_": "train:run"}}
    request = executor.render(Job(key="k1", name="job", plan=plan, package=package))
    text = json.dumps([request.payload, dict(request.files)])
    assert "a line that no job needs" not in text
    assert "d" * 64 in request.files["job.json"]


def test_executor_comes_back_from_its_json():
    executor = LocalExecutor(root="jobs", time="1:00:00", env={"A": "b"}, grace=5)
    assert executor_from_json(executor.to_json()) == dataclasses.replace(
        executor, inherit_env=list(executor.inherit_env)
    )


def test_unknown_kind_and_unknown_field_are_named():
    with pytest.raises(ExecutorError, match=r"kind 'mainframe'.*local"):
        executor_from_json({"kind": "mainframe"})
    with pytest.raises(ExecutorError, match=r"no field partition.*python"):
        executor_from_json({"kind": "local", "partition": "debug"})
