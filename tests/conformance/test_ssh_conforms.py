"""The SSH executor passes the conformance suite, on the lab's login node."""

import pytest

from nemo_airflow.executors.ssh import SSHExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestSSHExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, ssh_conn_id):
        return SSHExecutor(ssh_conn_id=ssh_conn_id, root="~/conformance")
