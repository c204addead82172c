"""The job's GPUs are sampled by the variables of the job; a program of the name stands for ``nvidia-smi``."""

import os
import time

import pytest

from nemo_airflow.runner import gpus


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >"$0.arguments"\necho "0, 87, 1024, 81920, 300.5, 700.00, [N/A]"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return program


def first_sample(sampler):
    end = time.monotonic() + 300
    while not (values := sampler.sample()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return values


@pytest.mark.parametrize("job", [{}, {"env": None}, {"env": {}}])
def test_all_gpus_are_sampled_for_a_job_without_variables(nvidia_smi, job):
    assert first_sample(gpus.Sampler.of(job)) == {
        "gpu_0_utilization_percentage": 87,
        "gpu_0_memory_usage_megabytes": 1073.7,
        "gpu_0_memory_usage_percentage": 1.2,
        "gpu_0_power_usage_watts": 300.5,
        "gpu_0_power_usage_percentage": 42.9,
    }
    assert "--id" not in nvidia_smi.with_name("nvidia-smi.arguments").read_text()


def test_only_the_gpus_that_the_job_sees_are_sampled(nvidia_smi):
    first_sample(gpus.Sampler.of({"env": {"CUDA_VISIBLE_DEVICES": "2,3"}}))
    assert "--id=2,3" in nvidia_smi.with_name("nvidia-smi.arguments").read_text()


@pytest.mark.parametrize("devices", ["", "-1"])
def test_a_job_that_sees_no_gpu_has_no_samples_of_gpus(nvidia_smi, devices):
    assert gpus.Sampler.of({"env": {"CUDA_VISIBLE_DEVICES": devices}}) is None
