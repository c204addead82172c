"""What tests with Airflow's triggerers share."""

import pytest


@pytest.fixture
def one_api(monkeypatch, airflow_database):
    """Has all triggerers that a test starts use one API of Airflow in this process, which takes seconds to begin."""
    from airflow.jobs import triggerer_job_runner
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    monkeypatch.setattr(triggerer_job_runner, "in_process_api_server", in_process_api_server)
