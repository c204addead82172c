"""The Docker executor passes the conformance suite, on the lab's daemon."""

import pytest

from nemo_airflow.executors.docker import DockerExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestDockerExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, lab_docker, lab_image):
        return DockerExecutor(container_image=lab_image, docker_url=lab_docker)
