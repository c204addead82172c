"""Grid Engine's commands, and what their answers say of jobs: see qsub(1), qstat(1), accounting(5). Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from xml.etree import ElementTree

from nemo_airflow.executors.batch.probe import Probe
from nemo_airflow.executors.batch.scheduler import Entry, Scheduler
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.seen import RUNNING, WAITING, Fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

_RESCHEDULED = 25
"""``failed`` of a run after which the job is in the queue again."""

_LIMIT = 37
"""``failed`` of a job that came to its ``h_rt``, ``h_cpu`` or ``h_vmem``."""

_AFTER_JOB = 100
"""``failed`` of a job that a signal ended: its own, or that of ``qdel``."""

_BY_SIGKILL = 137


class GridEngine(Scheduler):
    """``qsub``, ``qstat``, ``qacct`` and ``qdel``.

    Args:
        settings: The cell's ``settings.sh`` on the host, which says where the cluster is; None where a login has that.
    """

    kind = "gridengine"
    title = "Grid Engine"
    id_of_answer = "s/[^0-9].*//"
    transient = (
        "unable to send message to qmaster", "unable to contact qmaster", "got send error", "commlib error",
        "can't connect", "got no response", "failed receiving gdi request", "timeout",
    )  # fmt: skip
    signals = False

    def __init__(self, settings: str | None = None) -> None:
        self._settings = settings

    def submit(self, name: str) -> str:
        """See :meth:`Scheduler.submit`; the name stands in the script."""
        return self._command(f"qsub -terse {folders.START}")

    def probes(self) -> Sequence[Probe]:
        """See :meth:`Scheduler.probes`."""
        return (
            Probe("qstat", self._command("qstat -help | head -n 1"), "give settings=... the cell's settings.sh"),
            Probe("queue", self._command("qstat -f >/dev/null && echo answers"), "ask why qmaster does not answer"),
            Probe(
                "queue and resources",
                self._command("qsub -w v $script 2>&1"),
                "'qconf -sql' lists queues, 'qconf -spl' parallel environments; change the executor's fields",
                gets_script=True,
            ),
        )

    def list_named(self, name: str) -> str:
        """See :meth:`Scheduler.list_named`: those in the queue, and those that ended meanwhile."""
        name = shlex.quote(name)
        return self._command(
            f"{{ qstat -j {name} | sed -n 's/^job_number: *//p'; qacct -j {name} | sed -n 's/^jobnumber *//p'; }} | "
            "sort -n"
        )

    def list_queue(self) -> str:
        """See :meth:`Scheduler.list_queue`."""
        return self._command('qstat -xml -u "$(id -un)"')

    def parse_queue(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_queue`."""
        try:
            jobs = list(ElementTree.fromstring(text).iter("job_list"))  # noqa: S314 - of the cluster's own program
        except ElementTree.ParseError as error:
            raise ValueError(f"{error} in {text[:80]!r}") from error
        entries = {}
        for job in jobs:
            job_id, name, state = (job.findtext(tag, "") for tag in ("JB_job_number", "JB_name", "state"))
            entries[job_id] = Entry(job_id, name, state, _fact(state))
        return entries

    def list_history(self, ids: Collection[str], since: float) -> str:
        """See :meth:`Scheduler.list_history`. That a job is not found is an answer, though it looks like an error."""
        each = 'answer=$(qacct -j $id 2>&1) && echo "$answer" && continue'
        missing = (
            "case $answer in *' not found'* | *'no jobs running since'*) ;; *) echo \"$answer\" >&2; exit 1 ;; esac"
        )
        return self._command(f"for id in {' '.join(ids)}; do {each}; {missing}; done; true")

    def parse_history(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_history`: a job has a record for each of its runs, of which the last counts."""
        entries = {}
        for record in re.split(r"^=+\n", text, flags=re.MULTILINE):
            values = dict(re.findall(r"^(\w+) +(.*?) *$", record, re.MULTILINE))
            job_id = values.get("jobnumber", "")
            failed, code = (re.match(r"\d+", values.get(name, "")) for name in ("failed", "exit_status"))
            if not job_id or failed is None or code is None:
                continue
            why = values["failed"].partition(":")[2].strip()
            fact = _end(int(failed.group()), int(code.group()), why)
            entries[job_id] = Entry(job_id, values.get("jobname", ""), values["failed"], fact)
        return entries

    def withdraw(self, ids: Sequence[str]) -> str:
        """See :meth:`Scheduler.withdraw`."""
        return self._command(f"qdel {' '.join(ids)}")

    def kill(self, entry: Entry) -> str:
        """See :meth:`Scheduler.kill`."""
        name = re.escape(entry.name)
        return self._command(f"qstat -j {entry.id} | grep -Eq '^job_name: *{name}$' && qdel {entry.id}")

    def explain_refusal(self, complaint: str) -> tuple[FailureKind, str]:
        """See :meth:`Scheduler.explain_refusal`."""
        lines = [line.strip() for line in complaint.splitlines() if line.strip() not in ("", "Exiting.")]
        reason = " ".join(lines).removeprefix("Unable to run job: ")
        limited = "no suitable queues" in reason or "exceed" in reason or "quota" in reason
        return FailureKind.QUOTA if limited else FailureKind.USER_ERROR, reason

    def _command(self, command: str) -> str:
        return f". {shlex.quote(self._settings)} && {{ {command}\n}}" if self._settings else command


def _fact(state: str) -> Fact | None:
    """Returns what the letters of a state mean: of a job that is being deleted, after a ``d``."""
    letters = state.removeprefix("d")
    if "E" in letters:
        reason = f"Grid Engine: {state}: it could not be started; qstat -j says why"
        return Fact(JobStatus(JobState.PENDING, reason=reason), stuck=FailureKind.NODE_FAILURE, held=True)
    if "q" in letters:  # qw, hqw, Rq: R is a job's that has run before
        waits = JobStatus(JobState.PENDING, reason=f"Grid Engine: {state}")
        return Fact(waits, may_restart="R" in letters)
    if letters and set(letters) <= set("rtRsSTh"):
        return RUNNING
    return WAITING if letters in ("w", "hw") else None


def _end(failed: int, code: int, why: str) -> Fact:
    """Returns what the numbers of an ended job mean: an exit code of 0 is a success only where nothing else failed."""
    if failed == _RESCHEDULED:
        return Fact(JobStatus(JobState.PENDING, reason="Grid Engine: rescheduled"), may_restart=True)
    if failed == 0 and code == 0:
        return Fact(JobStatus(JobState.SUCCEEDED, 0))
    if failed == 0:
        return Fact(JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR, f"exit code {code}"))
    reason = f"Grid Engine: failed {failed}: {why}"
    if failed == _LIMIT:
        return Fact(JobStatus(JobState.FAILED, _BY_SIGKILL, FailureKind.TIMEOUT, reason))
    if failed == _AFTER_JOB:
        return Fact(JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR, reason))
    return Fact(JobStatus(JobState.FAILED, None, FailureKind.NODE_FAILURE, reason))
