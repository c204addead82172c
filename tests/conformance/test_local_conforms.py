"""The local executor passes the conformance suite."""

import pytest

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestLocalExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, tmp_path):
        return LocalExecutor(root=str(tmp_path / "jobs"))
