"""The labs that are there to be broken."""

import pytest
from lab.connections import ssh_connection


@pytest.fixture
def slurm_to_break(lab_to_break, monkeypatch):
    """A Slurm of one's own, reached by the connection ``chaos``."""
    lab_to_break.up("slurm")
    monkeypatch.setenv("AIRFLOW_CONN_CHAOS", ssh_connection(lab_to_break.ssh))
    return lab_to_break
