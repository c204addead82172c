"""The example DAGs import their code from beside them, as Airflow lets them."""

import sys
from pathlib import Path

import pytest
from side_by_side import end_after_group

sys.path.insert(0, str(Path(__file__).parents[2] / "dags"))


@pytest.fixture(scope="session")
def airflow_server(request, tmp_path_factory):
    """A real Airflow with the example DAGs, one for all tests of this folder."""
    from nemo_airflow.cli.airflow_server import AirflowServer

    dags = Path(__file__).parents[2] / "dags"
    # Only the runs that a test asks for: a DAG on a schedule would begin with one of its own.
    env = {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}
    server = AirflowServer(tmp_path_factory.mktemp("airflow-server"), dags, env=env, open_to_all=True)
    end_after_group(request, server.stop)
    try:
        server.start()
        yield server
    finally:
        server.stop()
