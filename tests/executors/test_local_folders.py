"""What local jobs leave on the disk goes after its time, and nothing that may be needed does."""

import json

import pytest
from job_cases import follow, script_job

from nemo_airflow import blocking
from nemo_airflow.executors import LocalExecutor


@pytest.fixture
def submit(tmp_path):
    """Returns a function that submits a script with a ``ttl``, and gives executor, driver and handle."""
    drivers = []

    def start(script, ttl):
        executor = LocalExecutor(root=str(tmp_path), ttl=ttl)
        driver = executor.connect()
        drivers.append(driver)
        return executor, driver, blocking.run(driver.submit(executor.render(script_job(script))))

    yield start
    for driver in drivers:
        blocking.run(driver.close())


def wait(executor, handle):
    assert follow(executor, handle).outcome.succeeded


def test_folder_of_an_ended_job_goes_after_its_time(submit, tmp_path):
    executor, driver, handle = submit("true", ttl=0)
    wait(executor, handle)
    blocking.run(driver.sweep())
    assert not (tmp_path / handle.key).exists()


@pytest.mark.parametrize("ttl", [3600, None])
def test_folder_stays_until_its_time_has_come(submit, tmp_path, ttl):
    executor, driver, handle = submit("true", ttl=ttl)
    wait(executor, handle)
    blocking.run(driver.sweep())
    assert (tmp_path / handle.key / "end.json").exists()


def test_folder_of_a_running_job_stays(submit, tmp_path):
    _, driver, handle = submit("sleep 600", ttl=0)
    blocking.run(driver.sweep())
    assert (tmp_path / handle.key / "claim").exists()
    blocking.run(driver.cancel([handle]))


def test_folder_of_a_job_that_runs_on_another_machine_stays(submit, tmp_path):
    executor, driver, handle = submit("true", ttl=0)
    wait(executor, handle)
    folder = tmp_path / handle.key
    (folder / "end.json").unlink()
    claim = json.loads((folder / "claim").read_text())
    (folder / "claim").write_text(json.dumps({**claim, "host": "elsewhere"}))
    blocking.run(driver.sweep())
    assert folder.exists()


def test_folder_of_a_job_that_was_never_begun_goes_as_well(submit, tmp_path):
    executor, driver, handle = submit("true", ttl=0)
    wait(executor, handle)
    folder = tmp_path / handle.key
    (folder / "end.json").unlink()
    (folder / "claim").unlink()
    blocking.run(driver.sweep())
    assert not folder.exists()
