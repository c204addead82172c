"""What to do about a job, by how it fares."""

from __future__ import annotations

from nemo_airflow.job import FailureKind, JobState

_FAILED = {
    FailureKind.USER_ERROR: "read the traceback with 'nemo-airflow logs {key}', mend the code or the config, and run "
    "it again",
    FailureKind.OUT_OF_MEMORY: "give the job more memory (mem=..., memory=...), or make its batches smaller",
    FailureKind.PREEMPTED: "run it again; a partition or a priority that others do not preempt keeps it running",
    FailureKind.NODE_FAILURE: "run it again: its machine failed, not its code; exclude that machine if it fails again",
    FailureKind.TIMEOUT: "give it a longer time (time=...), or have it go on from a checkpoint",
    FailureKind.IMAGE: "check the name of the image and that its host may pull it",
    FailureKind.PACKAGE: "check the Python of the job's machine (3.9 or newer) and its disk, then run it again",
    FailureKind.QUOTA: "ask for less, use another account or namespace, or wait until others have ended",
    FailureKind.OUTPUTS: "'nemo-airflow attach {key}' keeps its outputs without running it again",
    FailureKind.LOST: "look at its machine: the job ended without a word, as by a power cut; run it again",
    FailureKind.CANCELLED: "run it again, if that was not wanted",
    FailureKind.FETCH: "nothing: its task is submitted again, with what it is given sent by the worker",
    FailureKind.ARTIFACT: "run what made the artifact again, or give the job another one",
}

_STATES = {
    JobState.PENDING: "wait, or ask for less or for another partition; 'nemo-airflow attach {key}' says when it starts",
    JobState.RUNNING: "'nemo-airflow logs -f {key}' shows what it writes",
    JobState.UNKNOWN: "its back-end cannot be asked now: ask again, or check the connection",
    JobState.SUCCEEDED: "",
}

_UNSAID = {JobState.LOST: FailureKind.LOST, JobState.CANCELLED: FailureKind.CANCELLED}
"""What is meant where a back-end tells no kind of failure."""


def advice_for(state: str, failure: str, key: str) -> str:
    """Returns what to do next, in one line; empty where there is nothing to do.

    Args:
        state: The job's state.
        failure: Why it failed, or empty.
        key: The job's key.
    """
    known = _STATES.get(JobState(state))
    if known is None:
        known = _FAILED[FailureKind.parse(failure) if failure else _UNSAID.get(JobState(state), FailureKind.USER_ERROR)]
    return known.format(key=key)
