"""The phases of a job as a value: what is told twice changes nothing, and it stays small."""

import json
import time

import pytest
from airflow.sdk.log import mask_secret

from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus
from nemo_airflow.phases import AWAY, ENDED, PENDING, RUNNING, JobView, Phases
from nemo_airflow.stream import Record

HANDLE = JobHandle("job", "local", "1", submitted_at=100.0)


def states(phases):
    return [(phase.state, phase.why, phase.at, phase.until) for phase in phases.items]


def record(kind, at, **data):
    return Record(kind, data, at, 0)


def test_each_reason_of_a_wait_is_a_phase():
    phases = Phases().enter(PENDING, "", 100.0).enter(PENDING, "Priority", 101.0).enter(PENDING, "Priority", 102.0)
    phases = phases.enter(PENDING, "Resources", 103.0).enter(RUNNING, "", 110.0)
    assert states(phases) == [
        (PENDING, "Priority", 100.0, 103.0),
        (PENDING, "Resources", 103.0, 110.0),
        (RUNNING, "", 110.0, None),
    ]


def test_start_is_when_the_job_says_and_not_when_it_was_seen_to_run():
    phases = Phases().enter(PENDING, "Priority", 100.0).enter(RUNNING, "", 120.0).start(110.0, again=False)
    assert states(phases) == [(PENDING, "Priority", 100.0, 110.0), (RUNNING, "", 110.0, None)]


def test_job_that_its_back_end_starts_again_has_two_phases_of_running():
    phases = Phases().enter(PENDING, "", 100.0).start(110.0, again=False).enter(PENDING, "preempted", 120.0)
    phases = phases.start(130.0, again=True).start(140.0, again=True)
    assert [phase.at for phase in phases.items if phase.state == RUNNING] == [110.0, 130.0, 140.0]
    assert phases.now.at == 140.0


def test_clock_of_a_job_that_is_late_makes_no_phase_begin_before_the_one_before():
    phases = Phases().enter(PENDING, "", 100.0).start(50.0, again=False).enter(ENDED, "succeeded", 60.0)
    assert [phase.at for phase in phases.items] == [100.0, 100.0, 100.0]


def test_back_end_that_is_away_is_a_phase_beside_that_of_the_job():
    phases = Phases().enter(RUNNING, "", 100.0).open(AWAY, "no route", 110.0).open(AWAY, "refused", 111.0)
    assert phases.now.state == AWAY
    assert states(phases.close(AWAY, 120.0)) == [(RUNNING, "", 100.0, None), (AWAY, "no route", 110.0, 120.0)]
    assert phases.close(AWAY, 120.0).now.state == RUNNING


def test_what_is_told_again_by_a_later_follower_changes_nothing():
    def follow(view):
        view.take(record("start", 110.0))
        view.take(record("environment", 110.0, host="node-7"))
        view.take(record("metrics", 111.0, points=[["loss", 0.5, 1, 111.0], ["loss", 0.25, 2, 111.0]]))
        view.see(JobStatus(JobState.RUNNING))
        view.end(JobStatus(JobState.FAILED, 1, FailureKind.OUT_OF_MEMORY), "killed", 120.0)

    first = JobView(HANDLE)
    first.see(JobStatus(JobState.PENDING, reason="Resources"))
    follow(first)
    second = JobView(HANDLE, resumes=True)
    follow(second)
    second.resume(json.loads(json.dumps(first.to_json())))
    assert states(second.phases)[0][:3] == (PENDING, "Resources", 100.0)
    data = second.to_json()
    assert [phase["state"] for phase in data["phases"]] == [PENDING, RUNNING, ENDED]
    assert (data["host"], data["metrics"], data["alive_at"]) == ("node-7", {"loss": 0.25}, 111.0)
    assert data["why"] == "failed (out_of_memory): killed"


def test_outage_that_an_earlier_follower_has_seen_ends_when_the_job_is_seen_again():
    first = JobView(HANDLE)
    first.take(record("start", 110.0))
    first.see(None, "the host is down")
    second = JobView(HANDLE, resumes=True)
    second.resume(first.to_json())
    second.see(JobStatus(JobState.UNKNOWN), "still down")
    assert second.phases.now.state == AWAY
    second.see(None, "it answers again", is_over=True)
    assert second.phases.now.state == RUNNING
    third = JobView(HANDLE, resumes=True)
    third.see(JobStatus(JobState.RUNNING))
    third.resume(first.to_json())
    assert third.phases.now.state == RUNNING


def test_attempt_that_continues_another_has_its_phases_before():
    first = JobView(HANDLE)
    first.take(record("start", 110.0))
    first.end(JobStatus(JobState.FAILED, None, FailureKind.PREEMPTED), "", 120.0)
    second = JobView(JobHandle("job-2", "local", "2", submitted_at=130.0), first.phases)
    second.take(record("start", 140.0))
    assert [phase.state for phase in second.phases.items] == [PENDING, RUNNING, ENDED, PENDING, RUNNING]
    assert second.phases.now.at == 140.0


def test_of_many_phases_the_first_and_the_newest_are_kept_and_the_one_that_lasts():
    phases = Phases().enter(PENDING, "", 100.0).enter(RUNNING, "", 110.0)
    for number in range(200):
        phases = phases.open(AWAY, "x" * 5000, 200.0 + number).close(AWAY, 200.5 + number)
    assert (len(phases.items), phases.left_out) == (50, 152)
    assert (phases.items[0].state, phases.now.state, phases.items[-1].at) == (PENDING, RUNNING, 399.0)
    assert {len(phase.why) for phase in phases.items} == {0, 300}
    assert Phases.from_json(json.loads(json.dumps(phases.to_json()))) == phases


def test_text_for_a_tag_is_json_that_is_cut_between_phases():
    phases = Phases()
    for number in range(50):
        phases = phases.enter(PENDING, f"reason {number} " + '"ä' * 100, 100.0 + number)
    data = json.loads(phases.to_text())
    assert 4000 < len(phases.to_text()) <= 5000
    assert (data["phases"][0]["at"], data["phases"][-1]["at"]) == (100.0, 149.0)
    assert data["left_out"] == 50 - len(data["phases"])


def test_secrets_and_what_no_database_stores_are_in_no_reason():
    mask_secret("hunter2-of-phases")
    phases = Phases().enter(PENDING, "login with hunter2-of-phases\nrefused \0", 100.0)
    assert phases.items[0].why == "login with *** refused \\x00"


def test_metrics_that_a_hostile_job_reports_are_passed_over():
    view = JobView(HANDLE)
    view.take(record("metrics", 1.0, points=[["a", [1] * 9], [{}, 1], "x", None, ["b"], ["c" * 1000, 1], ["d", "nan"]]))
    view.take(record("metrics", 1.0, points=7))
    view.take(record("environment", 1.0, host=["x"]))
    view.take(record("metrics", 1e300, points=[[f"m{number}", number] for number in range(100)]))
    data = view.to_json()
    assert data["metrics"] == {"d": "nan"} | {f"m{number}": number for number in range(19)}
    assert data["alive_at"] <= round(time.time(), 3)


@pytest.mark.parametrize("data", [{}, {"phases": [{}]}, {"phases": [{"state": "x", "why": "", "at": None}]}])
def test_what_is_no_list_of_phases_is_refused(data):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Phases.from_json(data)
