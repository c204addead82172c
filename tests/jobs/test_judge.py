"""What facts mean: a table of what was seen of a job, and what it comes to; and what no facts may ever come to."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_airflow.executors.seen import GONE, RUNNING, WAITING, Accounting, Fact, Seen
from nemo_airflow.job import FailureKind, JobState, JobStatus
from nemo_airflow.jobs.judge import Policy, Verdict, add_sighting, judge

POLICY = Policy()
OWN = {"state": "succeeded", "exit_code": 0}
FAILED = {"state": "failed", "exit_code": 1, "error": {"type": "ValueError", "message": "no"}}
TOLD = {"state": "cancelled", "exit_code": 143, "failure": "cancelled", "told_to_end": True}


def ended(state, failure=None, code=None, **more):
    return Fact(JobStatus(state, code, failure, "why"), **more)


SUCCEEDED = ended(JobState.SUCCEEDED, code=0)
EXIT_1 = ended(JobState.FAILED, FailureKind.USER_ERROR, 1)
KILLED = ended(JobState.FAILED, FailureKind.OUT_OF_MEMORY, 137)
PREEMPTED = ended(JobState.FAILED, FailureKind.PREEMPTED, may_restart=True)
CANCELLED = ended(JobState.CANCELLED, FailureKind.CANCELLED)
QUEUED_AGAIN = dataclasses.replace(WAITING, may_restart=True)
HOPELESS = Fact(JobStatus(JobState.PENDING, reason="BadConstraints"), stuck=FailureKind.QUOTA)
NO_IMAGE = Fact(JobStatus(JobState.PENDING, reason="ImagePullBackOff"), stuck=FailureKind.IMAGE)
ENDING = ended(JobState.FAILED, FailureKind.TIMEOUT, settling=20.0)
HELD = dataclasses.replace(HOPELESS, held=True)
GROUP_FAILED = dataclasses.replace(EXIT_1, partial=True)
SIDECAR = dataclasses.replace(SUCCEEDED, leftover=True)


def see(*looks):
    """Returns the sightings of looks: each seconds, and what was seen."""
    sightings = ()
    for at, facts in looks:
        sightings = add_sighting(sightings, Seen(at, **facts))
    return sightings


def lasting(facts, *times):
    """Returns looks that tell the same at several times, in seconds."""
    return [(at, facts) for at in times]


SUCCESS = (JobState.SUCCEEDED,)
FAILURE = JobState.FAILED
CANCEL = (JobState.CANCELLED, FailureKind.CANCELLED)
LOSS = (JobState.LOST, FailureKind.LOST)
RESULT_LOST = (JobState.LOST, FailureKind.NODE_FAILURE)
RUNS, WAITS, UNKNOWN = (JobState.RUNNING,), (JobState.PENDING,), (JobState.UNKNOWN,)
GIVE_UP = True

NOTHING = {"note": "not there"}
LATE = {"mark_is_late": True}
OURS = {"cancelled_by_us": True}
ACCOUNTS = {"accounting": Accounting.ANSWERED}
NO_ANSWER = {"accounting": Accounting.AWAY}
NO_LOG = {"unread": "no log"}
LOG_IS_GONE = {"unread": "no log", "unread_for_good": True}

CASES = {
    "nothing was seen yet": ([], *UNKNOWN),
    "it waits": ([(0, {"queue": WAITING})], *WAITS),
    "it runs": ([(0, {"queue": RUNNING})], *RUNS),
    "its accounting says that it runs": ([(0, {"history": RUNNING})], *RUNS),
    "a mark wins over a queue that is late": ([(0, {"queue": RUNNING, "mark": OWN})], *SUCCESS),
    "a mark wins over another end": ([(0, {"queue": KILLED, "mark": OWN})], *SUCCESS),
    "a mark tells why it failed": ([(0, {"mark": FAILED})], FAILURE, FailureKind.USER_ERROR),
    "it is done, and queued again": ([(0, {"queue": QUEUED_AGAIN, "mark": OWN})], *SUCCESS, None, GIVE_UP),
    "its process is gone on this machine": ([(0, {"queue": GONE})], *LOSS),
    "it has succeeded and leaves no mark": ([(0, {"queue": SUCCEEDED})], *SUCCESS),
    "a mark may come late": ([(0, {"queue": SUCCEEDED, **LATE})], *RUNS),
    "a mark did not come": (lasting({"queue": SUCCEEDED, **LATE}, 0, 90), *SUCCESS),
    "a runner that failed by itself has left a mark": (lasting({"queue": EXIT_1, **LATE}, 0, 20), *RUNS),
    "a runner that was killed has left none": (
        lasting({"queue": KILLED, **LATE}, 0, 10), FAILURE, FailureKind.OUT_OF_MEMORY),
    "it may be started again": (lasting({"queue": PREEMPTED}, 0, 29), *RUNS),
    "it was not started again": (lasting({"queue": PREEMPTED}, 0, 30), FAILURE, FailureKind.PREEMPTED),
    "only the back-end knows why it was told to end": (
        lasting({"queue": PREEMPTED, "mark": TOLD}, 0, 30), FAILURE, FailureKind.PREEMPTED),
    "it was told to end, and is queued again": (
        [(0, {"queue": PREEMPTED, "mark": TOLD}), (9, {"queue": QUEUED_AGAIN, "mark": TOLD})], *WAITS),
    "it was told to end, is queued again, and would wait for ever": (
        lasting({"queue": HOPELESS, "mark": TOLD}, 0, 10), FAILURE, FailureKind.QUOTA, GIVE_UP),
    "it was told to end where nobody keeps accounts": ([(0, {"mark": TOLD})], *CANCEL),
    "we cancelled it while it was preempted": ([(0, {"queue": PREEMPTED, "mark": TOLD, **OURS})], *CANCEL),
    "it was told to end by hand": ([(0, {"queue": EXIT_1, "mark": TOLD})], *CANCEL),
    "we cancelled it before its runner listened": ([(0, {"queue": EXIT_1, **OURS, **LATE})], *CANCEL),
    "it was cancelled by hand": ([(0, {"queue": CANCELLED, **LATE})], *CANCEL),
    "we cancelled it in a queue that drops it late": ([(0, {"queue": WAITING, **OURS})], *CANCEL),
    "we cancelled it, and nobody knows it": (lasting(OURS, 0, 1, 2), *CANCEL),
    "its node ended it, whose controller forgot it": (lasting({"mark": TOLD, **ACCOUNTS}, 0, 10), *LOSS),
    "and its accounting calls it running for ever": (
        lasting({"mark": TOLD, "history": RUNNING, **ACCOUNTS}, 0, 10), *LOSS),
    "the accounting that knows why is away": (lasting({"mark": TOLD, **NO_ANSWER}, 0, 59), *RUNS),
    "and does not come back": (lasting({"mark": TOLD, **NO_ANSWER}, 0, 60), *CANCEL),
    "reasons for which it would wait for ever come late": (lasting({"queue": HOPELESS}, 0, 9), *WAITS),
    "it would wait for ever": (lasting({"queue": HOPELESS}, 0, 10), FAILURE, FailureKind.QUOTA, GIVE_UP),
    "its image may come yet": (lasting({"queue": NO_IMAGE}, 0, 29), *WAITS),
    "its image does not come": (lasting({"queue": NO_IMAGE}, 0, 30), FAILURE, FailureKind.IMAGE, GIVE_UP),
    "its process may still be ending": (lasting({"queue": ENDING}, 0, 19), *RUNS),
    "its process has had its time to end": (lasting({"queue": ENDING}, 0, 20), FAILURE, FailureKind.TIMEOUT),
    "the back-end holds it for ever": ([(0, {"queue": HELD})], FAILURE, FailureKind.QUOTA, GIVE_UP),
    "one machine has failed and others run": ([(0, {"queue": GROUP_FAILED})], *RUNS, None, GIVE_UP),
    "its sidecar does not end": ([(0, {"queue": SIDECAR})], *SUCCESS, None, GIVE_UP),
    "its log is away": ([(0, {"queue": SUCCEEDED, **NO_LOG})], *RUNS),
    "its log stays away, and its result": (lasting({"queue": SUCCEEDED, **NO_LOG}, 0, 300), *RESULT_LOST),
    "its log is gone, and its result": ([(0, {"queue": SUCCEEDED, **LOG_IS_GONE})], *RESULT_LOST),
    "its log is gone, but not how it ended": (
        [(0, {"queue": EXIT_1, **LOG_IS_GONE})], FAILURE, FailureKind.USER_ERROR),
    "it is not there for less than a minute": (lasting(NOTHING, 0, 30, 59), *UNKNOWN),
    "two answers are too few": (lasting(NOTHING, 0, 60), *UNKNOWN),
    "three answers and a minute": (lasting(NOTHING, 0, 30, 60), *LOSS),
    "one answer that is given again is one": ([*[(0, NOTHING)] * 9, (60, NOTHING)], *UNKNOWN),
    "a sign of life begins the count anew": (
        [(0, NOTHING), (30, NOTHING), (40, {"history": RUNNING}), (60, NOTHING)], *UNKNOWN),
    "no answer is no evidence": ([(0, NOTHING), (30, NOTHING), (60, {"trouble": "away"})], *UNKNOWN),
    "its accounting alone knows it": (lasting({"history": RUNNING}, 0, 300, 599), *RUNS),
    "its accounting alone knows it for too long": (lasting({"history": RUNNING}, 0, 300, 600), *LOSS),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_facts_are_judged(case):
    looks, *expected = case
    state, failure, give_up = (*expected, *(None, False)[len(expected) - 1 :])
    judged = judge(see(*looks), POLICY)
    assert (judged.status.state, judged.status.failure, judged.give_up is not None) == (state, failure, give_up)


facts = st.sampled_from(
    [None, RUNNING, WAITING, SUCCEEDED, EXIT_1, KILLED, PREEMPTED, QUEUED_AGAIN, HOPELESS, GROUP_FAILED]
)
anything = st.builds(
    Seen,
    at=st.floats(0, 10_000),
    queue=facts,
    history=facts,
    accounting=st.sampled_from(Accounting),
    mark=st.sampled_from([None, OWN, FAILED, TOLD]),
    mark_is_late=st.booleans(),
    cancelled_by_us=st.booleans(),
    trouble=st.sampled_from(["", "", "away"]),
)
alive = st.sampled_from([{"queue": RUNNING}, {"queue": WAITING}, {"history": RUNNING}])
bad = st.sampled_from([{}, {"trouble": "away"}])


@given(st.lists(anything, max_size=30))
def test_any_answers_in_any_order_are_judged(looks):
    sightings = ()
    for seen in looks:
        sightings = add_sighting(sightings, seen)
        assert isinstance(judge(sightings, POLICY), Verdict)


@given(st.lists(st.tuples(alive, st.lists(st.tuples(bad, st.floats(0, 9.0)), max_size=6)), min_size=1, max_size=20))
def test_empty_stale_and_missing_answers_between_good_ones_lose_no_healthy_job(rounds):
    sightings, now = (), 0.0
    for good, others in rounds:
        now += 1.0
        sightings = add_sighting(sightings, Seen(now, **good))
        for facts, pause in others:  # for less than a minute
            now += pause
            sightings = add_sighting(sightings, Seen(now, **facts))
            assert not judge(sightings, POLICY).status.state.is_final


@given(st.lists(anything, max_size=20))
def test_mark_of_a_runner_that_ended_by_itself_wins_whatever_was_seen_before(looks):
    sightings = ()
    for seen in looks:
        sightings = add_sighting(sightings, seen)
    last = dataclasses.replace(Seen(20_000.0, queue=RUNNING), mark=OWN)
    assert judge(add_sighting(sightings, last), POLICY).status.state is JobState.SUCCEEDED


ALIVE = (RUNNING, WAITING, QUEUED_AGAIN, GROUP_FAILED)
GHOSTS = (WAITING, QUEUED_AGAIN, GROUP_FAILED)
gone = anything.filter(lambda seen: seen.queue not in ALIVE and seen.history not in GHOSTS)


@given(st.lists(anything, max_size=20), gone)
def test_job_that_is_gone_does_not_run_for_ever(looks, last):
    sightings = ()
    for seen in looks:
        sightings = add_sighting(sightings, seen)
    for at in range(20_000, 30_000, 250):
        sightings = add_sighting(sightings, dataclasses.replace(last, trouble="", at=float(at)))
    assert judge(sightings, POLICY).status.state.is_final


def test_few_sightings_are_kept_of_a_job_whose_word_changes_all_the_time():
    sightings = see(*((float(at), {"queue": RUNNING if at % 2 else WAITING}) for at in range(1000)))
    assert len(sightings) < 20
