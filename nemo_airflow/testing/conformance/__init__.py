"""The conformance suite: what the rest of the system expects of every executor.

Subclass :class:`ExecutorConformance` in a test module, and give it an ``executor`` fixture::

    class TestMyExecutor(ExecutorConformance):
        @pytest.fixture
        def executor(self, tmp_path):
            return MyExecutor(...)

The cases need a back-end that can start a process with Python 3.9 or newer, and nothing else there.
"""

from nemo_airflow.testing.conformance.base import Finished
from nemo_airflow.testing.conformance.ending import EndingCases
from nemo_airflow.testing.conformance.given import ArtifactCases
from nemo_airflow.testing.conformance.identity import IdentityCases
from nemo_airflow.testing.conformance.outage import OutageCases
from nemo_airflow.testing.conformance.results import ResultCases
from nemo_airflow.testing.conformance.running import RunningCases
from nemo_airflow.testing.conformance.secrets import SecretCases

__all__ = ["ExecutorConformance", "Finished"]


class ExecutorConformance(
    RunningCases, ResultCases, ArtifactCases, EndingCases, IdentityCases, SecretCases, OutageCases
):
    """Cases for one executor. A subclass gives the ``executor`` fixture."""
