"""Where the links of a task lead that are not its run's."""

import json

import pytest

from nemo_airflow.job import JobHandle
from nemo_airflow.operators.links import console_page

RAY = JobHandle("train-1", "ray", "train-1", "https://ray.example:8265")
POD = JobHandle("train/1", "kubernetes", "uid 1", "prod")


def test_a_job_of_ray_leads_to_its_dashboard_without_a_setting(monkeypatch):
    assert console_page(RAY, pytest.fail) == "https://ray.example:8265/#/jobs/train-1"
    assert console_page(POD, pytest.fail) == ""


def test_the_console_of_a_back_end_is_a_setting(monkeypatch):
    consoles = {"kubernetes": "https://k8s.example/{cluster}/#/search?q={key}&uid={id}", "ray": "javascript:{key}"}
    monkeypatch.setenv("NEMO_AIRFLOW_CONSOLES", json.dumps(consoles))
    assert console_page(POD, pytest.fail) == "https://k8s.example/prod/#/search?q=train%2F1&uid=uid%201"
    assert console_page(RAY, pytest.fail) == ""  # no address of the web


@pytest.mark.parametrize("text", ["https://k8s.example", '["a"]', '{"ray": 1}'])
def test_a_wrong_setting_is_said_with_an_example_and_keeps_no_job_from_running(monkeypatch, text):
    monkeypatch.setenv("NEMO_AIRFLOW_CONSOLES", text)
    warnings = []
    assert console_page(POD, warnings.append) == ""
    said = f"NEMO_AIRFLOW_CONSOLES={text!r} is not a JSON object of addresses: set it to such as {{"
    assert warnings[0].startswith(said)
