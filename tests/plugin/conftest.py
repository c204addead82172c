"""A real Airflow below a path, with users who may see different things."""

import json
import os

import pytest
from plugin_server import HERE, end_of, repository, token
from side_by_side import end_after_group

from nemo_airflow.cli.airflow_server import AirflowServer


@pytest.fixture(scope="session")
def plugin_airflow(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("plugin-server")
    env = {
        "AIRFLOW__CORE__AUTH_MANAGER": "one_dag_refused.OneDagRefused",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin,vera:viewer,uma:user,otto:viewer",
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
        "PLUGIN_TEST_GO": str(home / "go"),
    }
    server = AirflowServer(home, repository(home / "dags"), env=env, path="/airflow")
    end_after_group(request, server.stop)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def server(plugin_airflow):
    return plugin_airflow


@pytest.fixture(scope="session")
def tokens(server):
    """A token of each user, by name."""
    passwords = json.loads((server.airflow_home / "simple_auth_manager_passwords.json.generated").read_text())
    return {name: token(server, name, password) for name, password in passwords.items()}


@pytest.fixture(scope="session")
def runs(server):
    """A run each of the DAGs with a job to look at, by the DAG's id."""
    started = {dag_id: server.trigger(dag_id) for dag_id in ("shown", "private", "hostile")}
    for dag_id, run_id in started.items():
        assert end_of(server, dag_id, run_id) == "success"
    return started
