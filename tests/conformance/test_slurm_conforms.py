"""The Slurm executor passes the conformance suite, on the lab's cluster."""

import pytest

from nemo_airflow.executors.slurm import SlurmExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestSlurmExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, ssh_conn_id, lab_slurm):
        return SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/conformance")
