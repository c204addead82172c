"""Tells from what was seen of a job how it fares. Pure, and one for all back-ends.

The rules, the strongest first:

1. The end mark of a runner that ended by itself wins over every other word.
2. A runner that was told to end does not know why: by us, and the job is cancelled; else the back-end knows, and may
   start the job again.
3. A back-end that says that a job waits or runs is believed, its accounting too: that is life.
4. A job that ended without a mark ended as the back-end says, once a mark that may be late had its time.
5. A job that nobody knows is lost after several *answers* and a while: one empty answer, given many times, is one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from nemo_airflow.executors.folder import status_of_end
from nemo_airflow.executors.seen import Accounting, Fact, Seen
from nemo_airflow.job import FailureKind, JobState, JobStatus

_KNOWN_OUTSIDE = frozenset({
    FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.QUOTA, FailureKind.TIMEOUT, FailureKind.OUT_OF_MEMORY,
})  # fmt: skip
"""Reasons of an end that only the back-end knows: to the runner they look like a cancellation."""

_BY_SIGNAL = 128
"""Exit codes from here on are of a process that a signal ended."""

_CHANGES_KEPT = 16

_NOBODY_ASKED = "the job was told to end, though nobody cancelled it, and the back-end knows nothing of it"

_GHOST = "the accounting calls the job running, but the back-end itself does not know it any more"


@dataclasses.dataclass(frozen=True)
class Policy:
    """How long what is uncertain is waited for, in seconds.

    Attributes:
        lost_after: A job that nobody knows is lost after so long ...
        lost_answers: ... and so many answers.
        mark: For an end mark of a runner that ended by itself, on a disk that shows files late.
        mark_after_kill: The same of one that was killed, and may have left none.
        restart: For a back-end to put a preempted job into its queue again.
        accounting: For an accounting that does not answer, where it alone knows why a job was told to end.
        stream: For the stream of a job that has ended, which cannot be read just now: its result stands there.
        stuck: For what a queued job waits for and will not come, as the back-end says: its reasons change at first.
        image: For an image that does not come: two or three attempts of a node.
        ghost: For a job that the accounting calls running, and that the back-end itself does not know any more.
    """

    lost_after: float = 60.0
    lost_answers: int = 3
    mark: float = 90.0
    mark_after_kill: float = 10.0
    restart: float = 30.0
    accounting: float = 60.0
    stream: float = 300.0
    stuck: float = 10.0
    image: float = 30.0
    ghost: float = 600.0


@dataclasses.dataclass(frozen=True)
class Sighting:
    """Answers in a row that tell the same of a job.

    Attributes:
        seen: The last of them.
        since: When the first was fetched, as :attr:`Seen.at`.
        answers: How many there were; the same answer given again does not count.
    """

    seen: Seen
    since: float
    answers: int = 1


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a job fares.

    Attributes:
        status: Final only when it will not change any more.
        give_up: What the job comes to where what the back-end still has of it is to be ended: that would wait, or run,
            for nothing.
    """

    status: JobStatus
    give_up: JobStatus | None = None


def add_sighting(sightings: Sequence[Sighting], seen: Seen) -> tuple[Sighting, ...]:
    """Returns the sightings with one more; what tells the same as the last one is counted there.

    Args:
        sightings: Those before, the oldest first.
        seen: The next. One that is not newer than the last, or could not look at the job, changes nothing.
    """
    last = sightings[-1] if sightings else None
    if seen.trouble or (last is not None and seen.at < last.seen.at):
        return tuple(sightings)
    if last is None or _meaning(seen) != _meaning(last.seen):
        return (*sightings[1 - _CHANGES_KEPT :], Sighting(seen, seen.at))
    new = seen.at > last.seen.at
    return (*sightings[:-1], Sighting(seen, last.since, last.answers + new))


def judge(sightings: Sequence[Sighting], policy: Policy) -> Verdict:
    """Returns how a job fares.

    Args:
        sightings: What was seen of it, the oldest first; see :func:`add_sighting`.
        policy: How long to wait for what. Time passes from answer to answer: no answer is no evidence.
    """
    if not sightings:
        return Verdict(JobStatus(JobState.UNKNOWN, reason="the job could not be looked at yet"))
    seen = sightings[-1].seen
    word = seen.word
    if seen.mark is not None:
        end = status_of_end(seen.mark)
        if end.state is not JobState.CANCELLED:
            # In the queue for another time: the back-end has lost that the job is done, and the runner would refuse.
            return Verdict(end, end if word is not None and _would_run_again(word) else None)
        return _judge_told_to_end(end, sightings, policy)
    if word is None:
        lasted, answers = _length(sightings, lambda each: each.word is None and each.mark is None)
        if answers >= policy.lost_answers and seen.cancelled_by_us:  # taken out of a queue that keeps nothing of it
            return Verdict(JobStatus(JobState.CANCELLED, failure=FailureKind.CANCELLED))
        if answers >= policy.lost_answers and lasted >= policy.lost_after:
            return Verdict(JobStatus(JobState.LOST, None, FailureKind.LOST, seen.note))
        return Verdict(JobStatus(JobState.UNKNOWN, reason=seen.note))
    if word.status.state.is_final:
        return _judge_unmarked_end(word, sightings, policy)
    return _judge_alive(word, sightings, policy)


def _judge_alive(word: Fact, sightings: Sequence[Sighting], policy: Policy) -> Verdict:
    """Judges a job that waits or runs, as the back-end says, or its accounting."""
    seen = sightings[-1].seen
    if seen.cancelled_by_us and word.status.state is JobState.PENDING:
        reason = "cancelled while it was queued"
        return Verdict(JobStatus(JobState.CANCELLED, failure=FailureKind.CANCELLED, reason=reason))
    if word.stuck is not None:
        lasted, _ = _length(sightings, lambda each: each.word is not None and each.word.stuck is not None)
        if word.held or lasted >= (policy.image if word.stuck is FailureKind.IMAGE else policy.stuck):
            failed = JobStatus(JobState.FAILED, None, word.stuck, word.status.reason)
            return Verdict(failed, failed)
    if seen.queue is None:
        lasted, answers = _length(sightings, lambda each: each.queue is None and each.mark is None)
        if answers >= policy.lost_answers and lasted >= policy.ghost:
            return Verdict(JobStatus(JobState.LOST, None, FailureKind.LOST, seen.note or _GHOST))
    return Verdict(word.status)


def judge_unread(status: JobStatus, why: str, waited: float, policy: Policy) -> JobStatus:
    """Returns how a job fares that has ended, and whose stream cannot be read: its result stands there.

    Args:
        status: How the job has ended.
        why: Why its stream cannot be read.
        waited: For how many seconds that has been so; infinity where it never can be.
        policy: How long to wait for that.
    """
    if waited < policy.stream:
        return JobStatus(JobState.RUNNING, reason=f"the job has ended, but {why}")
    if status.state is not JobState.SUCCEEDED:
        return status
    return JobStatus(
        JobState.LOST, None, FailureKind.NODE_FAILURE, f"the job has succeeded, but its result is lost: {why}"
    )


def _judge_told_to_end(end: JobStatus, sightings: Sequence[Sighting], policy: Policy) -> Verdict:
    """Judges a job whose runner was told to end, and has left its mark."""
    seen = sightings[-1].seen
    # Accounting that calls it running has not heard yet, or never will: its runner has ended.
    word = seen.queue or (seen.history if seen.history and seen.history.status.state.is_final else None)
    if seen.cancelled_by_us:
        return Verdict(end, end if word is not None and _would_run_again(word) else None)
    waited, _ = _length(sightings, lambda each: _is_told(each) and not _is_queued(each))
    if word is None:
        if seen.accounting is Accounting.NONE:
            return Verdict(end)
        # A controller that lost its last seconds gives a job's id to another, and has its node end what runs under it.
        if seen.accounting is Accounting.ANSWERED and waited >= policy.mark_after_kill:
            return Verdict(JobStatus(JobState.LOST, None, FailureKind.LOST, _NOBODY_ASKED))
        if seen.accounting is Accounting.AWAY and waited >= policy.accounting:
            return Verdict(end)
        return Verdict(JobStatus(JobState.RUNNING, reason=_NOBODY_ASKED))
    if not word.status.state.is_final:
        return _judge_alive(word, sightings, policy)
    if word.may_restart and waited < policy.restart:
        return Verdict(JobStatus(JobState.RUNNING, reason=word.status.reason))
    outside = word.status.state is JobState.LOST or word.status.failure in _KNOWN_OUTSIDE
    return Verdict(word.status if outside else end)


def _judge_unmarked_end(word: Fact, sightings: Sequence[Sighting], policy: Policy) -> Verdict:
    """Judges a job that has ended, as the back-end says, and whose runner has left no mark that is seen."""
    seen, status = sightings[-1].seen, word.status
    if word.partial:
        return Verdict(JobStatus(JobState.RUNNING, reason=status.reason), status)
    if status.state is JobState.CANCELLED:  # it says what a mark would say
        return Verdict(status)
    if seen.cancelled_by_us and status.failure in (FailureKind.USER_ERROR, FailureKind.LOST):
        return Verdict(JobStatus(JobState.CANCELLED, status.exit_code, FailureKind.CANCELLED))
    waited, _ = _length(
        sightings, lambda each: each.mark is None and each.word is not None and each.word.status.state.is_final
    )
    grace = word.settling
    if word.may_restart:
        grace = policy.restart
    elif seen.mark_is_late:
        by_itself = status.exit_code is not None and status.exit_code < _BY_SIGNAL
        by_itself = by_itself and status.failure in (None, FailureKind.USER_ERROR)
        marked = status.state is JobState.SUCCEEDED or by_itself
        grace = policy.mark if marked else policy.mark_after_kill
    if waited < grace:
        return Verdict(JobStatus(JobState.RUNNING, reason=status.reason))
    if seen.unread:
        waited, _ = _length(sightings, lambda each: bool(each.unread))
        status = judge_unread(status, seen.unread, math.inf if seen.unread_for_good else waited, policy)
    return Verdict(status, status if word.leftover and status.state.is_final else None)


def _would_run_again(word: Fact) -> bool:
    return word.may_restart and not word.status.state.is_final


def _is_told(seen: Seen) -> bool:
    return seen.mark is not None and status_of_end(seen.mark).state is JobState.CANCELLED


def _is_queued(seen: Seen) -> bool:
    return seen.queue is not None and not seen.queue.status.state.is_final


def _length(sightings: Sequence[Sighting], holds: Callable[[Seen], bool]) -> tuple[float, int]:
    """Returns for how many seconds, and for how many answers, something has held without a break."""
    since, answers = sightings[-1].seen.at, 0
    for sighting in reversed(sightings):
        if not holds(sighting.seen):
            break
        since, answers = sighting.since, answers + sighting.answers
    return sightings[-1].seen.at - since, answers


def _meaning(seen: Seen) -> tuple[object, ...]:
    """Returns what of a look the rules rest on: reasons in words change more often."""
    words = [
        word and dataclasses.replace(word, status=dataclasses.replace(word.status, reason=""))
        for word in (seen.queue, seen.history)
    ]
    return (*words, seen.accounting, seen.mark is not None, _is_told(seen), seen.cancelled_by_us, bool(seen.unread))
