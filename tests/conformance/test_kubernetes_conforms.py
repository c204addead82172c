"""The Kubernetes executor passes the conformance suite, on the lab's cluster."""

import pytest

from nemo_airflow.executors.kubernetes import KubernetesExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


class TestKubernetesExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, lab_kubeconfig, lab_image):
        return KubernetesExecutor(container_image=lab_image, config_file=lab_kubeconfig, linger=30.0)
