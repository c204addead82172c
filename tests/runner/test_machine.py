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


STAT = "cpu  {user} 10 30 {idle} {waits} 5 5 0 40 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
NET = (
    "Inter-| Receive\n face |bytes\n  lo: {lo} 1 0 0 0 0 0 0 {lo} 1 0 0 0 0 0 0\neth0: {eth} 1 0 0 0 0 0 0 7000000 1\n"
)


def test_values_are_those_since_the_last_sample_and_of_the_network_since_the_first(monkeypatch):
    files = {
        "/proc/stat": STAT.format(user=100, idle=800, waits=50),
        "/proc/net/dev": NET.format(lo=1_000_000, eth=5_000_000),
        "/proc/meminfo": "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 750000 kB\n",
    }
    monkeypatch.setattr(machine, "_lines", lambda path: files[path].splitlines())
    sampler = machine.Sampler()
    files["/proc/stat"] = STAT.format(user=160, idle=820, waits=70)  # 60 ticks of 100 were busy
    files["/proc/net/dev"] = NET.format(lo=1_500_000, eth=8_000_000)
    values = sampler.sample()
    assert values["cpu_utilization_percentage"] == 60.0
    assert (values["network_receive_megabytes"], values["network_transmit_megabytes"]) == (3.5, 0.5)
    assert (values["system_memory_usage_megabytes"], values["system_memory_usage_percentage"]) == (256.0, 25.0)
    files["/proc/stat"] = STAT.format(user=160, idle=920, waits=70)
    assert sampler.sample()["cpu_utilization_percentage"] == 0.0


def test_what_cannot_be_read_is_left_out(monkeypatch):
    monkeypatch.setattr(machine, "_lines", lambda path: [])
    assert set(machine.Sampler().sample()) == {
        "disk_usage_megabytes", "disk_available_megabytes", "disk_usage_percentage"
    }  # fmt: skip
