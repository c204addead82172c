"""The example DAGs import their code from beside them, as Airflow lets them."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "dags"))


@pytest.fixture(scope="package")
def airflow_server(tmp_path_factory):
    """A real Airflow with the example DAGs, one for all tests of this folder: an idle one takes a tenth of a core."""
    from nemo_airflow.cli.airflow_server import AirflowServer

    dags = Path(__file__).parents[2] / "dags"
    # Only the runs that a test asks for: a DAG on a schedule would begin with one of its own.
    env = {"AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False"}
    server = AirflowServer(tmp_path_factory.mktemp("airflow-server"), dags, env=env, open_to_all=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()
