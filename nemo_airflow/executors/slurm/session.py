"""Talks to Slurm for many jobs at once, through one shell on a login node.

That a job has ended is seen in its stream first, by the runner's last record; the queue is asked
seldom, for all jobs in one call, and the accounting only for jobs that left it without an end mark.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, SubmitError
from nemo_airflow.executors.base import Request
from nemo_airflow.executors.folder import status_of_end
from nemo_airflow.executors.slurm import states
from nemo_airflow.executors.slurm.executor import SlurmExecutor
from nemo_airflow.executors.ssh import folders
from nemo_airflow.executors.ssh.session import RemoteSession, parse_marks
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus

_QUEUE_EVERY = 5.0
"""Seconds for which what the queue said is good enough."""

_END_GRACE = 10.0
"""Seconds that a shared disk may take to show the end mark of a job that Slurm says has ended."""

_ACCOUNTING_GRACE = 60.0
"""Seconds for which an accounting that does not answer is waited for, where it decides how a job ended."""

_HOPELESS_GRACE = 10.0
"""Seconds for which a job may wait for what will not come before it is given up: reasons come late."""

_RESTART_GRACE = 30.0
"""Seconds that Slurm may take to put a preempted job into the queue again."""

_SUBMITTING = 60
"""Seconds after which somebody else's submit, of which nothing came, counts as dead."""

_BUSY, _REFUSED = 24, 25
_NO_PROGRAM = 127

_FORGOTTEN = JobStatus(
    JobState.LOST, None, FailureKind.LOST, "a controller that knew nothing of the job has had its node end it"
)
"""A controller that lost its last seconds gives a job's id to another; what then runs under that id is ended."""

# An earlier or somebody else's sbatch may have been accepted though its answer was lost: ask by name.
# What sbatch refuses for its resources stands in the queue all the same, as failed.
_FUNCTIONS = """
lookup() {
  id=$(squeue -h -u "$(id -un)" -t all -n "$1" -o '%A %r' 2>/dev/null | grep -v BadConstraints | sort -n | head -n 1)
  id=${id%% *}
  [ -n "$id" ] || id=$(sed -n 's/.*"owner": "slurm:\\([0-9]*\\)".*/\\1/p' claim 2>/dev/null)
}
note() {
  echo "$id $(date +%s)" >jobid.$$ && { ln jobid.$$ jobid 2>/dev/null; rm -f jobid.$$; cat jobid; }
}
"""


@dataclasses.dataclass
class _Ended:
    """A job that Slurm says has ended, and whose end mark is awaited."""

    since: float
    status: JobStatus


class SlurmSession(RemoteSession):
    """Submits, finds, polls and cancels jobs of one user of one cluster."""

    def __init__(self, conn_id: str, root: str) -> None:
        super().__init__(conn_id, root)
        self._queue: dict[str, states.Entry] = {}
        self._queue_at = float("-inf")
        self._final: dict[str, JobStatus] = {}
        self._ended: dict[str, _Ended] = {}
        self._hopeless: dict[str, float] = {}
        self._accounting = True

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Session.find`."""
        answer = await self.shell.run(
            f"{folders.enter(self._root)}\ncd jobs || exit 21\n"
            f"for key in {' '.join(keys)}; do [ ! -s $key/jobid ] || {{ printf '%s ' $key; cat $key/jobid; }}; done"
        )
        return {key: self._handle(key, noted) for key, _, noted in parse_marks(answer.text)}

    async def poll(self, handles: Sequence[JobHandle]) -> dict[str, JobStatus]:
        """See :meth:`Session.poll`."""
        asked = [handle for handle in self._of_this_cluster(handles) if handle.key not in self._final]
        if asked and (time.monotonic() - self._queue_at > _QUEUE_EVERY or self._has_new(asked)):
            await self._ask_queue()
        gone = [handle for handle in asked if self._may_have_ended(self._queued(handle))]
        settled = await self._settle(gone) if gone else {}
        # After that: what Slurm has queued for ever may be done already.
        await self._give_up_hopeless([handle for handle in asked if handle.key not in self._final])
        return {handle.key: self._status(handle, settled) for handle in handles}

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Session.cancel`."""
        await self.shell.run(
            f"{folders.enter(self._root)}\n{folders.mark_cancelled([handle.key for handle in handles])}\ntrue"
        )
        await self._ask_queue()
        keys = {handle.key for handle in handles}
        entries = [
            (key, entry)
            for entry in self._queue.values()
            if (key := _key_of(entry.name, keys)) and not entry.status.state.is_final
        ]
        if entries:
            await self._end_jobs(entries)
        self._queue_at = float("-inf")

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Session.survey`."""
        await self._ask_queue()
        answer = await self.shell.run(f"{folders.enter(self._root)}\ncd jobs && ls")
        keys = set(answer.text.split())
        alive = {_key_of(entry.name, keys) for entry in self._queue.values() if not entry.status.state.is_final}
        found = sorted(key for key in alive if key)
        return list((await self.find(found)).values()) if found else []

    async def _launch(self, request: Request) -> JobHandle:
        name = str(request.payload["name"])
        script = f"""{folders.enter(self._root)}
cd jobs/{request.key} || exit 21
{_FUNCTIONS}
[ ! -s jobid ] || {{ cat jobid; exit 0; }}
if mkdir submitting 2>/dev/null; then
  if id=$(sbatch --parsable {folders.START} 2>error); then
    id=${{id%%;*}}; note
  else
    if grep -Eqi '{"|".join(states.UNREACHABLE)}' error; then
      sleep 1; lookup {shlex.quote(name)}
      [ -z "$id" ] || {{ note; exit 0; }}
    fi
    cat error >&2; rmdir submitting; exit {_REFUSED}
  fi
else
  lookup {shlex.quote(name)}
  [ -z "$id" ] || {{ note; exit 0; }}
  age=$(($(date +%s) - $(stat -c %Y submitting)))
  [ $age -lt {_SUBMITTING} ] || {{ mv submitting dead.$$ && rmdir dead.$$; }}
  exit {_BUSY}
fi"""
        deadline = time.monotonic() + 2 * _SUBMITTING
        answer = await self.shell.run(script)
        while answer.code == _BUSY and time.monotonic() < deadline:
            await asyncio.sleep(0.3)
            answer = await self.shell.run(script)
        if answer.code == 0:
            return self._handle(request.key, answer.text)
        reason = _without_prefix(answer.err) or answer.reason
        if answer.code != _REFUSED or states.is_transient(answer.err):
            raise BackendUnavailable(f"Slurm behind {self._conn_id!r} did not take the job: {reason}")
        await self.shell.run(folders.remove(self._root, [request.key]))
        raise SubmitError(
            f"Slurm behind {self._conn_id!r} refused the job: {reason}", states.kind_of_refusal(answer.err)
        )

    async def _ask_queue(self) -> None:
        begun = time.monotonic()
        answer = await self.shell.run(f"squeue -h -u \"$(id -un)\" -t all -o '{states.QUEUE_FORMAT}'")
        if answer.code:
            raise BackendUnavailable(f"squeue behind {self._conn_id!r} does not answer: {answer.reason}")
        self._queue, self._queue_at = states.parse_queue(answer.text), begun

    def _has_new(self, handles: Iterable[JobHandle]) -> bool:
        """Whether one of the jobs may be too new for what the queue last said."""
        asked_at = time.time() - (time.monotonic() - self._queue_at)
        return any(self._queued(handle) is None and handle.submitted_at + 2 > asked_at for handle in handles)

    def _of_this_cluster(self, handles: Iterable[JobHandle]) -> list[JobHandle]:
        return [handle for handle in handles if handle.cluster == self._conn_id]

    async def _give_up_hopeless(self, handles: Iterable[JobHandle]) -> None:
        """Ends jobs that would wait for ever: nobody would look at them again."""
        now = time.monotonic()
        hopeless = []
        for handle in handles:
            entry = self._queued(handle)
            if entry is None or not entry.hopeless:
                self._hopeless.pop(handle.key, None)
            elif entry.is_held or now - self._hopeless.setdefault(handle.key, now) >= _HOPELESS_GRACE:
                hopeless.append((handle.key, entry))
        if hopeless:
            await self._end_jobs(hopeless)
            for key, entry in hopeless:
                self._settled(key, JobStatus(JobState.FAILED, None, entry.hopeless, entry.status.reason))

    def _queued(self, handle: JobHandle) -> states.Entry | None:
        entry = self._queue.get(handle.id)
        # Ids are recycled: the name says whose it is.
        return entry if entry is not None and entry.name.endswith(handle.key) else None

    @staticmethod
    def _may_have_ended(entry: states.Entry | None) -> bool:
        return entry is None or entry.status.state.is_final or entry.may_be_requeued

    def _status(self, handle: JobHandle, settled: dict[str, JobStatus]) -> JobStatus:
        if handle.cluster != self._conn_id:
            return JobStatus(JobState.UNKNOWN, reason=f"a job of the cluster {handle.cluster}, not of {self._conn_id}")
        if handle.key in self._final:
            return self._final[handle.key]
        if handle.key in settled:
            return settled[handle.key]
        entry = self._queued(handle)
        if entry is None:
            return JobStatus(JobState.UNKNOWN, reason="Slurm does not know the job (any more)")
        self._ended.pop(handle.key, None)
        return entry.status

    async def _settle(self, handles: Sequence[JobHandle]) -> dict[str, JobStatus]:
        """Finds out how jobs ended that are in the queue no more, or there as ended or for another time."""
        ends = await self._ends([handle.key for handle in handles])
        gone = [handle for handle in handles if self._queued(handle) is None]
        told = {handle.key for handle in gone if ends.get(handle.key, {}).get("told_to_end")}
        unsaid = {handle.key for handle in handles if handle.key not in ends and self._has_failed(handle)}
        cancelled = await self._cancelled_by_us(told | unsaid)
        told -= cancelled
        history = await self._history([handle for handle in gone if handle.key not in ends or handle.key in told])
        statuses = {}
        left = []
        for handle in handles:
            entry = self._queued(handle) or (history or {}).get(handle.id)
            if entry is not None and not entry.name.endswith(handle.key):
                entry = None
            mark = ends.get(handle.key)
            forgotten = entry is None or entry.word == states.FORGOTTEN
            if mark is not None and forgotten and handle.key in told and self._accounting:
                status: JobStatus | None = self._forgotten(handle.key, mark, known=history is not None)
            else:
                status = self._judge(handle.key, mark, entry, cancelled=handle.key in cancelled)
            if status is not None:
                statuses[handle.key] = status
            if entry is not None and entry.may_be_requeued and status is not None and status.state.is_final:
                left.append((handle.key, entry))
        if left:
            await self._end_jobs(left)
        return statuses

    def _has_failed(self, handle: JobHandle) -> bool:
        entry = self._queued(handle)
        return entry is None or entry.status.failure is FailureKind.USER_ERROR

    async def _cancelled_by_us(self, keys: Collection[str]) -> frozenset[str]:
        """Returns which of these jobs a session has cancelled."""
        if not keys:
            return frozenset()
        answer = await self.shell.run(folders.marked_cancelled(self._root, keys))
        return frozenset(answer.text.split())

    def _judge(
        self, key: str, mark: Mapping[str, Any] | None, entry: states.Entry | None, *, cancelled: bool
    ) -> JobStatus | None:
        """Weighs the runner's end mark against Slurm's word; None when neither says anything."""
        slurm = entry.status if entry is not None else None
        # A controller that died and lost its last seconds may queue a job again that is done: the runner would refuse.
        done = entry is not None and entry.may_be_requeued and mark is not None and not mark.get("told_to_end")
        if slurm is not None and not slurm.state.is_final and not done:
            return slurm
        end = status_of_end(mark) if mark is not None else None
        told = end is not None and end.state is JobState.CANCELLED
        if end is not None and not (told and slurm is not None and slurm.failure in states.RESTARTED):
            return self._settled(key, end)
        if slurm is None:
            return None
        if slurm.state is JobState.CANCELLED:  # it says what an end mark would say
            return self._settled(key, slurm)
        if cancelled and slurm.failure in (FailureKind.USER_ERROR, FailureKind.LOST):  # the runner left no mark
            return self._settled(key, JobStatus(JobState.CANCELLED, slurm.exit_code, FailureKind.CANCELLED))
        waited = time.monotonic() - self._ended.setdefault(key, _Ended(time.monotonic(), slurm)).since
        if waited < (_RESTART_GRACE if slurm.failure in states.RESTARTED else _END_GRACE):
            return JobStatus(JobState.RUNNING, reason=slurm.reason)
        return self._settled(key, slurm)

    def _forgotten(self, key: str, mark: Mapping[str, Any], *, known: bool) -> JobStatus:
        """Judges a job that was ended though nobody asked, and of which Slurm says nothing, or nothing yet.

        Args:
            key: The job's key.
            mark: The runner's end mark.
            known: Whether accounting has answered.
        """
        if time.time() - float(mark["ended"]) < (_END_GRACE if known else _ACCOUNTING_GRACE):
            return JobStatus(JobState.RUNNING, reason=_FORGOTTEN.reason)
        return self._settled(key, _FORGOTTEN if known else status_of_end(mark))

    def _settled(self, key: str, status: JobStatus) -> JobStatus:
        self._ended.pop(key, None)
        self._final[key] = status
        return status

    async def _history(self, handles: Sequence[JobHandle]) -> dict[str, states.Entry] | None:
        """Asks the accounting; None where there is none, or it does not answer."""
        if not handles or not self._accounting:
            return None
        # A window that begins with the first of them: without it, the day begins at midnight.
        since = int(min(handle.submitted_at for handle in handles)) - 60
        ids = ",".join(handle.id for handle in handles if handle.id.isdigit())
        if not ids:
            return None
        answer = await self.shell.run(
            f"sacct -n -P -X -S \"$(date -d @{since} +%FT%T)\" -j {ids} -o '{states.HISTORY_FORMAT}'"
        )
        if "accounting storage is disabled" in answer.err or answer.code == _NO_PROGRAM:
            self._accounting = False
        return states.parse_history(answer.text) if answer.code == 0 else None

    async def _end_jobs(self, entries: Sequence[tuple[str, states.Entry]]) -> None:
        """Ends jobs: those that wait at once, those that run by a signal to the runner, and for sure later."""
        waiting = " ".join(entry.id for _, entry in entries if entry.status.state is JobState.PENDING)
        lines = [folders.enter(self._root)]
        if waiting:
            lines.append(f"scancel --state=PENDING {waiting}")
        running = [(key, entry) for key, entry in entries if entry.status.state is not JobState.PENDING]
        if running:
            lines.append(f"scancel --signal=TERM --batch {' '.join(entry.id for _, entry in running)}")
        for key, entry in running:
            # Left on the host: whoever asked for it may be gone before the grace is over.
            wait = f"sleep $(($(cat jobs/{key}/grace) + 15)); scancel --name={shlex.quote(entry.name)} {entry.id}"
            lines.append(f"setsid sh -c {shlex.quote(wait)} >/dev/null 2>&1 </dev/null &")
        answer = await self.shell.run("\n".join([*lines, "true"]))
        if answer.err and states.is_transient(answer.err):
            raise BackendUnavailable(f"scancel behind {self._conn_id!r} did not get through: {answer.reason}")

    def _handle(self, key: str, noted: str) -> JobHandle:
        job_id, submitted = noted.split()
        return JobHandle(key, SlurmExecutor.kind, job_id, self._conn_id, float(submitted))


def _key_of(name: str, keys: set[str]) -> str:
    """Returns which of the keys a job's name, with its prefix, ends with; empty for none."""
    if name in keys:
        return name
    return next((key for key in keys if name.endswith(key)), "")


def _without_prefix(complaint: str) -> str:
    """Returns the reason in what sbatch wrote: its last line, without the words before it."""
    lines = [line for line in complaint.splitlines() if not line.startswith("Try ")]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [""])[-1].removeprefix("sbatch: ").removeprefix("error: ").strip()
