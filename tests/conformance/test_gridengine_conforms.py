"""The Grid Engine executor passes the conformance suite, on the lab's cluster."""

import pytest

from nemo_airflow.executors.gridengine import GridEngineExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestGridEngineExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, ssh_conn_id, lab_gridengine):
        return GridEngineExecutor(ssh_conn_id=ssh_conn_id, settings=lab_gridengine, root="~/conformance-gridengine")
