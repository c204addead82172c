"""Follows launched jobs in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

from nemo_airflow.cli.jobs import find_job
from nemo_airflow.cli.terminal import keep_output_clean, print_line, say
from nemo_airflow.exceptions import BackendUnavailable, JobFailed, SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.follow import Outcome
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.launch.following import Following, read_log, record_in_background
from nemo_airflow.launch.rank_logs import read_log_of_rank
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.operators.attempt import has_stopped

INTERRUPTED = 130
"""Exit code of a command that Ctrl-C has ended; the job goes on."""


def attach(key: str, *, quiet: bool) -> int:
    """Follows a launched job from its first line to its end; returns 0 if it has succeeded."""
    records = Records()
    return follow_to_end(records, records.find(key), quiet=quiet)


def logs(key: str, executor: str, *, follow: bool, rank: int | None) -> int:
    """Prints what a job, or one process of it, has written so far, or all it writes until it ends; returns 0.

    Args:
        key: The job's key, the beginning of it, its name, or ``last``; with an executor the whole key.
        executor: Where the job runs, if a task submitted it; else empty.
        follow: Whether to go on until it ends.
        rank: Only the lines of this process; None for all.

    Raises:
        SettingsError: There is no such job or process, or what is followed is not a whole job that was launched here.
    """
    if follow and (executor or rank is not None):
        given = "--executor" if executor else "--rank"
        raise SettingsError(f"with {given} a log is printed as far as it has come: leave out --follow")
    records = Records()
    record = _record_of(*find_job(key, executor)) if executor else records.find(key)
    if rank is not None:
        for line in read_log_of_rank(record, rank):
            print_line(line)
        return 0
    if not follow:
        for line in read_log(record):
            print_line(line)
        return 0
    return 0 if follow_to_end(records, record) != INTERRUPTED else INTERRUPTED


def _record_of(where: Executor, handle: JobHandle) -> Launched:
    """Returns what a record would have of a job that was not launched from this machine."""
    return Launched(handle.key, handle.key, where.to_json(), "", handle.submitted_at, handle.to_json())


def follow_to_end(records: Records, record: Launched, *, quiet: bool = False) -> int:
    """Follows a job; at Ctrl-C asks what is to become of it.

    Args:
        records: The records.
        record: The job's.
        quiet: Whether to print neither its lines nor ask anything.

    Returns:
        0 if it has succeeded, 1 if not, 130 if it goes on without this command.
    """
    keep_output_clean()
    following = Following(records, record, (lambda line: None) if quiet else print_line, say)
    while True:
        try:
            return _say_end(record, following.run())
        except JobFailed as error:
            say(str(error))
            return 1
        except KeyboardInterrupt:
            choice = "detach" if quiet else _ask(record.key)
        if choice == "cancel":
            say(f"cancelling job {record.key}")
            try:
                following.cancel()
            except (BackendUnavailable, TimeoutError) as error:
                say(f"it cannot be cancelled now: {error or 'no answer'}; run 'nemo-airflow cancel {record.key}' later")
                choice = "detach"
        if choice == "detach":
            if not quiet:
                record_in_background(records, record.key)
            say(
                f"job {record.key} goes on, and is recorded in the background: 'nemo-airflow attach {record.key}' "
                f"follows it, 'nemo-airflow cancel {record.key}' ends it"
            )
            return INTERRUPTED


def follow_chain(
    records: Records, record: Launched, max_chain: int, next_attempt: Callable[[Launched], Launched]
) -> int:
    """Follows a job, and those that continue it where it stops before it is done; see :func:`follow_to_end`.

    Args:
        records: The records.
        record: The job's.
        max_chain: How many attempts may follow each other.
        next_attempt: Submits the attempt after one, and returns its record.
    """
    for number in range(2, max_chain + 2):
        code = follow_to_end(records, record)
        end = records.load(record.key).end
        if code != 1 or end is None or not has_stopped(end) or number > max_chain:
            break
        record = next_attempt(record)
        say(
            f"attempt {number} of at most {max_chain} goes on from checkpoint {end.checkpoint}: job {record.key} "
            f"({record.job.kind} {record.job.id})"
        )
    return code


def _ask(key: str) -> str:
    """Returns what is to become of a job: ``detach``, ``cancel`` or ``follow``; without a terminal it is detached."""
    if not sys.stdin.isatty():
        return "detach"
    choices = {"": "detach", "d": "detach", "c": "cancel", "f": "follow"}
    sys.stderr.write(f"\nnemo-airflow: job {key} runs on. [D]etach, [c]ancel it, or [f]ollow on? ")
    sys.stderr.flush()
    try:
        return choices.get(sys.stdin.readline().strip().lower()[:1], "detach")
    except KeyboardInterrupt:
        return "detach"


def _say_end(record: Launched, outcome: Outcome) -> int:
    page = f"; {record.run_page}" if record.run_page else ""
    if outcome.succeeded:
        returned = "" if outcome.result is None else f", and returned {_short(outcome.result)}"
        say(f"job {record.key} has succeeded{returned}{page}")
        return 0
    kind = f" ({outcome.status.failure})" if outcome.status.failure else ""
    ended = "was cancelled" if outcome.status.state is JobState.CANCELLED else f"has failed{kind}"
    say(f"job {record.key} {ended}: {outcome.message}{page}; 'nemo-airflow why {record.key}' says what to do")
    if outcome.checkpoint and record.run:
        say(f"'nemo-airflow resume {record.key}' goes on from its checkpoint {outcome.checkpoint}")
    return 1


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
