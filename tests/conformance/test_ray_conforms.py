"""The Ray executor passes the conformance suite."""

import pytest
from lab.ray_cluster import ray_address  # noqa: F401 - a fixture

from nemo_airflow.executors.ray import RayExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestRayExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, ray_address):  # noqa: F811
        return RayExecutor(address=ray_address)
