"""The commands of PBS, and what their answers say of jobs: see qsub(1B), qstat(1B), qselect(1B) of OpenPBS. Pure."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from nemo_airflow.executors.batch.probe import Probe
from nemo_airflow.executors.batch.scheduler import Entry, Scheduler
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.seen import RUNNING, Fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

_QUEUED, _RUNNING, _ENDED = "QHWTM", "REBSU", "FX"

_DELETED = "91"
"""``substate`` of a job that somebody deleted."""

_BY_PBS = {-29: FailureKind.TIMEOUT, -28: FailureKind.TIMEOUT, -27: FailureKind.OUT_OF_MEMORY}
"""What negative exit codes are, which are of PBS: walltime, cput and mem; any other is a host's failure."""

_REQUEUED = -11
_SIGNAL = 256
"""Is added to the number of the signal that ended a job's shell."""

_FINISHED, _UNKNOWN = 35, 153
"""Exit codes of ``qstat`` where some of the jobs have ended, or are not known: the others are shown."""

_ENVIRONMENT = re.compile(r'"Variable_List":\{.*?\n\s*\},?', re.DOTALL)


class PBS(Scheduler):
    """``qsub``, ``qselect``, ``qstat`` and ``qdel`` of OpenPBS and PBS Professional."""

    kind = "pbs"
    title = "PBS"
    id_of_answer = "s/[[:space:]].*//"
    transient = (
        "cannot connect to server", "connection refused", "connection timed out", "no route to host",
        "communication failure", "premature end of message", "end of file", "server is busy",
    )  # fmt: skip
    signals = False

    def submit(self, name: str) -> str:
        """See :meth:`Scheduler.submit`; the name stands in the script."""
        return f"qsub {folders.START}"

    def probes(self) -> Sequence[Probe]:
        """See :meth:`Scheduler.probes`; PBS cannot check a script without a job."""
        return (
            Probe("qsub", "qsub --version 2>&1", "have ~/.bashrc there load PBS, or name a login node that has it"),
            Probe(
                "queue", "qstat -B >/dev/null && echo answers", "ask the administrators why the server does not answer"
            ),
        )

    def list_named(self, name: str) -> str:
        """See :meth:`Scheduler.list_named`: those that have ended too, where the server remembers them."""
        select = f'qselect -u "$(id -un)" -N {shlex.quote(name)}'
        return f"{{ {select} -x || {select}; }} | sort -n"

    def list_queue(self) -> str:
        """See :meth:`Scheduler.list_queue`: one's own jobs alone, since that of all is heavy for the server."""
        return f'ids=$(qselect -u "$(id -un)") || exit 1\n[ -n "$ids" ] || exit 0\n{_show("", ["$ids"])}'

    def parse_queue(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_queue`."""
        jobs: Mapping[str, Mapping[str, Any]] = _read(text).get("Jobs") or {} if text.strip() else {}
        return {
            job_id: Entry(job_id, str(job.get("Job_Name", "")), str(job.get("job_state", "")), _fact(job))
            for job_id, job in jobs.items()
        }

    def list_history(self, ids: Collection[str], since: float) -> str:
        """See :meth:`Scheduler.list_history`: the server itself remembers jobs for a while, where it is set up so."""
        return _show("-x", ids)

    def parse_history(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_history`."""
        return self.parse_queue(text)

    def has_no_accounting(self, code: int, complaint: str) -> bool:
        """See :meth:`Scheduler.has_no_accounting`."""
        return "not configured to maintain job history" in complaint.lower()

    def withdraw(self, ids: Sequence[str]) -> str:
        """See :meth:`Scheduler.withdraw`."""
        return f"qdel {' '.join(ids)}"

    def kill(self, entry: Entry) -> str:
        """See :meth:`Scheduler.kill`."""
        return f"qselect -N {shlex.quote(entry.name)} | grep -qxF {entry.id} && qdel {entry.id}"

    def explain_refusal(self, complaint: str) -> tuple[FailureKind, str]:
        """See :meth:`Scheduler.explain_refusal`."""
        _, reason = super().explain_refusal(complaint)
        limited = any(word in reason.lower() for word in ("exceed", "limit", "quota"))
        return FailureKind.QUOTA if limited else FailureKind.USER_ERROR, reason.removeprefix("qsub: ")


def _show(option: str, ids: Collection[str]) -> str:
    fine = f"0 | {_FINISHED} | {_UNKNOWN}) ;;"
    return f"qstat {option} -f -F json {' '.join(ids)}; code=$?; case $code in {fine} *) exit $code ;; esac"


def _read(text: str) -> dict[str, Any]:
    """Reads an answer in JSON, which some releases break by values of the environment that they do not quote."""
    try:
        return dict(json.loads(text))
    except ValueError:
        return dict(json.loads(_ENVIRONMENT.sub("", text)))


def _fact(job: Mapping[str, Any]) -> Fact | None:
    """Returns what PBS tells of a job; None for a state that this release does not know."""
    state = str(job.get("job_state", "")) or "?"
    reason = f"PBS: {state}" + (f" ({job['comment']})" if job.get("comment") else "")
    if state in _ENDED:
        return _end(job, reason)
    if state in _RUNNING:
        return RUNNING
    if state not in _QUEUED:
        return None
    again = int(job.get("run_count") or 0) > 0
    waits = JobStatus(JobState.PENDING, reason=reason)
    if state == "H" and "s" in str(job.get("Hold_Types", "")):  # by the server: too many starts have failed
        return Fact(waits, stuck=FailureKind.NODE_FAILURE, held=True)
    return Fact(waits, may_restart=again)


def _end(job: Mapping[str, Any], reason: str) -> Fact | None:
    code = job.get("Exit_status")
    if str(job.get("substate")) == _DELETED:
        return Fact(JobStatus(JobState.CANCELLED, None, FailureKind.CANCELLED, reason))
    if not isinstance(code, int):
        return Fact(JobStatus(JobState.LOST, None, FailureKind.LOST, reason))
    if code == _REQUEUED:
        return Fact(JobStatus(JobState.PENDING, reason=reason), may_restart=True)
    if code < 0:
        return Fact(JobStatus(JobState.FAILED, None, _BY_PBS.get(code, FailureKind.NODE_FAILURE), reason))
    if code == 0:
        return Fact(JobStatus(JobState.SUCCEEDED, 0))
    code = 128 + code - _SIGNAL if code > _SIGNAL else code
    return Fact(JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR, reason))
