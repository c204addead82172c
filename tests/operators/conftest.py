"""What the operator's tests share."""

import datetime
import ipaddress
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest
from airflow.sdk.bases.operator import ExecutorSafeguard

from nemo_airflow import LocalExecutor


@pytest.fixture
def root(tmp_path):
    return tmp_path / "jobs"


@pytest.fixture
def defaults(root):
    """Arguments of a task whose job runs here, with the tests' code, and is not tracked."""
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return {"job_executor": LocalExecutor(root=str(root), grace=1), "tracker": None, "env": env}


class Store(dict):
    """The state store of a task, which outlives its tries."""

    def set(self, key, value):
        self[key] = value


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def task_context(monkeypatch, store):
    """Returns a function that gives what Airflow tells ``execute()`` in a try of the only task of a DAG."""
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)

    def context(dag):
        ids = {"dag_id": dag.dag_id, "run_id": "run", "task_id": "t", "map_index": -1, "try_number": 1}
        run = {"run_type": "manual", "logical_date": None, "conf": {}, "run_after": datetime.datetime(2026, 1, 1)}
        return {
            "ti": SimpleNamespace(**ids, max_tries=3, xcom_push=lambda **_: None),
            "dag": dag,
            "dag_run": SimpleNamespace(**run),
            "task_state_store": store,
        }

    return context


@pytest.fixture
def gateway(lab_docker):
    """The address of this machine in the containers of the lab's daemon."""
    client = docker.DockerClient(base_url=lab_docker)
    try:
        pool = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        return pool.get("Gateway") or str(ipaddress.ip_network(pool["Subnet"])[1])  # Docker's own choice
    finally:
        client.close()
