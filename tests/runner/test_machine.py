"""The machine's samples have the names, the units and the values of MLflow's own."""

import time

import pytest
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from nemo_airflow.runner import machine


@pytest.fixture
def both():
    """Returns samples of ours and MLflow's of the same moments."""
    ours, theirs = machine.Sampler(), [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    theirs[0].collect_metrics()  # its first value of the processors is that since the start of the machine
    theirs[0].clear_metrics()
    time.sleep(1)
    for monitor in theirs:
        monitor.collect_metrics()
    return ours.sample(), {name: value for monitor in theirs for name, value in monitor.aggregate_metrics().items()}


def test_names_are_those_of_mlflow(both):
    ours, theirs = both
    assert ours.keys() == theirs.keys()


def test_values_are_those_of_mlflow(both):
    ours, theirs = both
    for name in ("disk_usage_megabytes", "disk_available_megabytes", "disk_usage_percentage"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.02), name
    # psutil counts shared memory and caches somewhat differently from version to version.
    assert ours["system_memory_usage_percentage"] == pytest.approx(theirs["system_memory_usage_percentage"], abs=10)
    assert ours["cpu_utilization_percentage"] == pytest.approx(theirs["cpu_utilization_percentage"], abs=40)


def test_what_cannot_be_read_is_left_out(monkeypatch):
    monkeypatch.setattr(machine, "_lines", lambda path: [])
    assert set(machine.Sampler().sample()) == {
        "disk_usage_megabytes", "disk_available_megabytes", "disk_usage_percentage"
    }  # fmt: skip
