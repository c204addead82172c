"""The DAGs of these tests, in the Airflow that tests share."""

import pytest


@pytest.fixture(scope="session")
def server(airflow_server):
    return airflow_server


@pytest.fixture(scope="session")
def runs(server, end_of):
    """A run each of the DAGs with a job to look at, by the DAG's id."""
    started = {dag_id: server.trigger(dag_id) for dag_id in ("shown", "private", "hostile")}
    for dag_id, run_id in started.items():
        assert end_of(dag_id, run_id) == "success"
    return started
