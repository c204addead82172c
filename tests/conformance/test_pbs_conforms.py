"""The PBS executor passes the conformance suite on a stand-in for PBS, which cannot be installed here.

It shows that the driver and the executor's scripts work together, not that PBS answers as the stand-in does.
"""

import dataclasses
import os
from pathlib import Path

import pytest
from lab import pbs_stand_in
from lab.connections import ssh_connection
from lab.logins import own_login

from nemo_airflow import blocking
from nemo_airflow.exceptions import SubmitError
from nemo_airflow.executors.pbs import PBSExecutor
from nemo_airflow.testing.conformance import ExecutorConformance


@pytest.fixture(scope="module")
def pbs_conn_id(lab, lab_ssh):
    with own_login(lab, lab_ssh, uses_slurm=False) as login:
        for command in ("qsub", "qselect", "qstat", "qdel"):
            login.write(f"bin/{command}", Path(pbs_stand_in.__file__).read_text(), 0o755)
        os.environ["AIRFLOW_CONN_PBS"] = ssh_connection(login.ssh)
        yield "pbs"


class TestPBSExecutor(ExecutorConformance):
    @pytest.fixture
    def executor(self, pbs_conn_id):
        return PBSExecutor(ssh_conn_id=pbs_conn_id, root="~/conformance")

    def test_refusal_is_in_the_words_of_qsub(self, executor, driver, make):
        with pytest.raises(SubmitError, match="refused the job: Unknown queue nowhere"):
            blocking.run(driver.submit(dataclasses.replace(executor, queue="nowhere").render(make("add", a=1, b=2))))
