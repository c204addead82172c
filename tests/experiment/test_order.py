"""Which job of an experiment begins next is decided from how the others stand."""

import pytest

from nemo_airflow.experiment.order import Standing, Steps, next_steps, standing_of_group
from nemo_airflow.experiment.records import RecordedJob
from nemo_airflow.job import JobState

DIAMOND = (("prep", ()), ("left", ("prep",)), ("right", ("prep",)), ("join", ("left", "right")))


def steps(cancelled=(), errors=None, **standings):
    jobs = [RecordedJob(name, (), before, is_cancelled=name in cancelled) for name, before in DIAMOND]
    return next_steps(jobs, {**{job.id: Standing.WAITING for job in jobs}, **standings}, errors or {})


@pytest.mark.parametrize(
    ("standings", "begin"),
    [
        ({}, ("prep",)),
        ({"prep": Standing.ACTIVE}, ()),
        ({"prep": Standing.SUCCEEDED}, ("left", "right")),
        ({"prep": Standing.SUCCEEDED, "left": Standing.SUCCEEDED, "right": Standing.ACTIVE}, ()),
        ({"prep": Standing.SUCCEEDED, "left": Standing.SUCCEEDED, "right": Standing.SUCCEEDED}, ("join",)),
    ],
)
def test_a_job_begins_when_all_before_it_have_succeeded(standings, begin):
    assert steps(**standings) == Steps(begin, {})


def test_what_waits_for_a_job_that_failed_is_refused_with_its_name_and_all_after_it_too():
    found = steps(prep=Standing.SUCCEEDED, left=Standing.FAILED, errors={"left": "ValueError: no data"})
    assert found.start == ("right",)
    assert found.refuse == {"join": "it waits for left, which has failed: ValueError: no data"}
    assert steps(prep=Standing.LOST).refuse == {
        "left": "it waits for prep, which was lost",
        "right": "it waits for prep, which was lost",
        "join": "it waits for left, which was not started",
    }


def test_a_job_that_waits_and_is_cancelled_is_refused():
    found = steps(cancelled=["left"], prep=Standing.ACTIVE)
    assert found.refuse == {
        "left": "it was cancelled before it was started",
        "join": "it waits for left, which was not started",
    }


@pytest.mark.parametrize(
    ("states", "standing"),
    [
        ([None, None], Standing.WAITING),
        ([JobState.SUCCEEDED, None], Standing.ACTIVE),
        ([JobState.FAILED, JobState.RUNNING], Standing.ACTIVE),
        ([JobState.SUCCEEDED, JobState.UNKNOWN], Standing.ACTIVE),
        ([JobState.CANCELLED, JobState.FAILED], Standing.FAILED),
        ([JobState.SUCCEEDED, JobState.CANCELLED], Standing.CANCELLED),
        ([JobState.LOST, JobState.SUCCEEDED], Standing.LOST),
        ([JobState.SUCCEEDED, JobState.SUCCEEDED], Standing.SUCCEEDED),
    ],
)
def test_a_group_stands_as_its_jobs_do(states, standing):
    assert standing_of_group(states) is standing
