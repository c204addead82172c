"""Tags and files that are reserved for the record of a job; the job itself may not write them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nemo_airflow.job import Job

RECORD = "nemo_airflow"
"""Folder of a run's artifacts with the record: plan, log, environment ..."""

_LOG = f"{RECORD}/log.txt"

_PREFIXES = ("nemo_airflow.", "airflow.", "mlflow.source.")
_TAGS = frozenset({"mlflow.parentRunId", "mlflow.rootRunId"})


def log_of(job: Job) -> str:
    """Returns the path in a run of the copy of a job's log.

    An attempt that continues an earlier one's run has a file of its own, so that it may be stored again, and needs
    nothing of the others: ``log_2.txt`` is that of the second attempt.
    """
    if not job.run_key:
        return _LOG
    before = job.earlier[: job.earlier.index(job.run_key) + 1] if job.run_key in job.earlier else job.earlier
    return f"{RECORD}/log_{len(before) + 1}.txt"


def split_tags(tags: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Returns the tags that a job may set, and the names of those that it may not."""
    refused = [name for name in tags if name in _TAGS or name.startswith(_PREFIXES)]
    return {name: value for name, value in tags.items() if name not in refused}, refused


def free_name(names: Iterable[str]) -> str:
    """Returns a free name for a job's folder or file that has the name of the record's folder."""
    taken = set(names)
    name = f"job_{RECORD}"
    while name in taken:
        name += "_"
    return name


class Names:
    """Gives a job's outputs their paths in the run, where one of them has the name of the record's folder."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def path_of(self, output: str) -> str:
        """Returns the path in the run of an output; the same at each call."""
        top, slash, rest = output.partition("/")
        if top not in self._given:
            taken = self._given.values()
            self._given[top] = free_name(taken) if top == RECORD or top in taken else top
        return f"{self._given[top]}{slash}{rest}"

    @property
    def of_record(self) -> str:
        """The name of the output that has the record's; empty if there is none."""
        return self._given.get(RECORD, "")
