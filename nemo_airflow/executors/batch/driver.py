"""Talks to a batch scheduler for many jobs at once, through one shell on a host where its commands are.

That a job has ended is seen in its stream first, by the runner's last record; the queue is asked
seldom, for all jobs in one call, and the accounting only for jobs that left it without an end mark.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from nemo_airflow.exceptions import BackendUnavailable, SubmitError
from nemo_airflow.executors.base import Executor, Request
from nemo_airflow.executors.batch.examination import try_probe
from nemo_airflow.executors.batch.scheduler import Entry, Scheduler
from nemo_airflow.executors.finding import Finding
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.host.driver import HostDriver, parse_marks
from nemo_airflow.executors.seen import Accounting, Seen
from nemo_airflow.job import Job, JobHandle, JobStatus
from nemo_airflow.terminal import Terminal

_QUEUE_EVERY = 5.0
"""Seconds for which what the queue said is good enough."""

_SUBMITTING = 60
"""Seconds after which an unfinished submit of another process counts as dead."""

_BUSY, _REFUSED = 24, 25
_SLACK = 15
"""Seconds after its grace that a runner has before its job is ended for good."""


class BatchDriver(HostDriver):
    """Submits, finds, polls and cancels jobs of one user of one cluster.

    Args:
        scheduler: What is particular to the scheduler there.
        conn_id: Id of an Airflow connection of type ``ssh``; None for this machine.
        root: Folder on the cluster's shared disk.
    """

    def __init__(self, scheduler: Scheduler, conn_id: str | None, root: str) -> None:
        super().__init__(conn_id, root)
        self._scheduler = scheduler
        self._queue: dict[str, Entry] = {}
        self._queue_at = float("-inf")
        self._asked_at = 0.0  # by the host's clock, which need not be ours
        self._accounting = True

    def _way_in(self, handle: JobHandle, script: str, terminal: Terminal) -> str:
        return self._scheduler.enter(handle.id, script, has_terminal=terminal.is_terminal)

    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """See :meth:`Driver.find`."""
        answer = await self.shell.run(
            f"{folders.enter(self._root)}\ncd jobs || exit 21\n"
            f"for key in {' '.join(keys)}; do [ ! -s $key/jobid ] || {{ printf '%s ' $key; cat $key/jobid; }}; done"
        )
        noted = [(key, words.split()) for key, _, words in parse_marks(answer.text)]
        return {key: self._handle(key, words) for key, words in noted if len(words) == 2}

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`."""
        asked = [handle for handle in handles if handle.cluster == self._cluster]
        if asked and (time.monotonic() - self._queue_at > _QUEUE_EVERY or self._has_new(asked)):
            await self._ask_queue()
        # That a job runs is enough to know; of all others more is asked.
        open_ends = [handle for handle in asked if _may_have_ended(self._queued(handle))]
        marks = await self._ends([handle.key for handle in open_ends])
        gone = [handle for handle in open_ends if self._queued(handle) is None]
        told = [handle for handle in open_ends if marks.get(handle.key, {}).get("told_to_end")]
        unmarked = [handle for handle in open_ends if handle.key not in marks and not self._waits(handle)]
        cancelled = await self._cancelled_by_us([handle.key for handle in [*told, *unmarked]])
        unexplained = [each for each in gone if each.key not in marks or (each in told and each.key not in cancelled)]
        accounting, history = await self._history(unexplained)
        seen = {}
        for handle in handles:
            if handle.cluster != self._cluster:
                note = f"a job of the cluster {handle.cluster}, not of {self._cluster}"
                seen[handle.key] = Seen(time.monotonic(), note=note)
                continue
            entry = self._queued(handle)
            if entry is not None and entry.fact is None:
                trouble = f"{self._title} calls job {handle.id} {entry.word}, which this release does not know"
                seen[handle.key] = Seen(self._queue_at, trouble=trouble)
                continue
            past = history.get(handle.id)
            seen[handle.key] = Seen(
                self._queue_at,
                queue=entry.fact if entry is not None else None,
                history=past.fact if past is not None and past.name.endswith(handle.key) else None,
                accounting=accounting if handle in unexplained else Accounting.NONE,
                mark=marks.get(handle.key),
                mark_is_late=True,
                cancelled_by_us=handle.key in cancelled,
                note=f"{self._title} does not know the job",
            )
        return seen

    async def give_up(self, handle: JobHandle, status: JobStatus) -> None:
        """See :meth:`Driver.give_up`."""
        entry = self._queued(handle)
        if entry is not None and not entry.has_ended:
            await self._end_jobs([(handle.key, entry)])

    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """See :meth:`Driver.cancel`."""
        await self.shell.run(
            f"{folders.enter(self._root)}\n{folders.mark_cancelled([handle.key for handle in handles])}\ntrue"
        )
        await self._ask_queue()
        keys = {handle.key for handle in handles}
        entries = [
            (key, entry) for entry in self._queue.values() if (key := _key_of(entry.name, keys)) and not entry.has_ended
        ]
        if entries:
            await self._end_jobs(entries)
        self._queue_at = float("-inf")

    async def survey(self) -> list[JobHandle]:
        """See :meth:`Driver.survey`."""
        await self._ask_queue()
        answer = await self.shell.run(f"{folders.enter(self._root)}\ncd jobs && ls")
        keys = set(answer.text.split())
        alive = {_key_of(entry.name, keys) for entry in self._queue.values() if not entry.has_ended}
        found = sorted(key for key in alive if key)
        return list((await self.find(found)).values()) if found else []

    async def foresee(self, request: Request) -> str:
        """See :meth:`Driver.foresee`."""
        probes = [each for each in self._scheduler.probes() if each.gets_script]
        found = [await try_probe(self.shell, each, request.files[folders.START]) for each in probes]
        return "; ".join(each.said.removeprefix("sbatch: ") for each in found)

    async def examine(self, executor: Executor) -> list[Finding]:
        """See :meth:`Driver.examine`: the host, and each thing that a job needs of the scheduler."""
        given: Any = executor  # each of this driver has a script
        script = given.script(Job("examined", "examined", {"version": 1, "root": None}))
        probes = self._scheduler.probes()
        return [*await super().examine(executor), *[await try_probe(self.shell, each, script) for each in probes]]

    @property
    def _title(self) -> str:
        return self._scheduler.title

    @property
    def _where(self) -> str:
        return f"{self._title} behind {self._cluster!r}"

    async def _launch(self, request: Request) -> JobHandle:
        name = str(request.payload["name"])
        # An earlier or somebody else's submit may have been accepted though its answer was lost: ask by name.
        script = f"""{folders.enter(self._root)}
cd jobs/{request.key} || exit 21
lookup() {{
  id=$({{ {self._scheduler.list_named(name)}
  }} 2>/dev/null | head -n 1)
  [ -n "$id" ] || id=$(sed -n 's/.*"owner": "{self._scheduler.kind}:\\([^"]*\\)".*/\\1/p' claim 2>/dev/null)
}}
note() {{
  echo "$id $(date +%s)" >jobid.$$ && {{ ln jobid.$$ jobid 2>/dev/null; rm -f jobid.$$; cat jobid; }}
}}
[ ! -s jobid ] || {{ cat jobid; exit 0; }}
if mkdir submitting 2>/dev/null; then
  if id=$({self._scheduler.submit(name)} 2>error); then
    id=$(echo "$id" | sed {shlex.quote(self._scheduler.id_of_answer)}); note
  else
    if grep -Eqi {shlex.quote("|".join(self._scheduler.transient))} error; then
      sleep 1; lookup
      [ -z "$id" ] || {{ note; exit 0; }}
    fi
    cat error >&2; rmdir submitting; exit {_REFUSED}
  fi
else
  lookup
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
            return self._handle(request.key, answer.text.split())
        kind, reason = self._scheduler.explain_refusal(answer.err)
        reason = reason or answer.reason
        if answer.code != _REFUSED or self._scheduler.is_transient(answer.err):
            raise BackendUnavailable(f"{self._where} did not accept the job: {reason}")
        await self.shell.run(folders.remove(self._root, [request.key]))
        raise SubmitError(f"{self._where} refused the job: {reason}", kind)

    async def _ask_queue(self) -> None:
        begun = time.monotonic()
        answer = await self.shell.run(f"date +%s\n{self._scheduler.list_queue()}")
        if answer.code:
            raise BackendUnavailable(f"the queue of {self._where} does not answer: {answer.reason}")
        asked_at, _, queue = answer.text.partition("\n")
        try:
            self._queue, self._asked_at = self._scheduler.parse_queue(queue), float(asked_at)
        except ValueError as error:
            raise BackendUnavailable(f"the answer of the queue of {self._where} cannot be read: {error}") from error
        self._queue_at = begun

    def _has_new(self, handles: Iterable[JobHandle]) -> bool:
        """Whether one of the jobs may be too new for what the queue last said; both times are the host's."""
        return any(self._queued(handle) is None and handle.submitted_at + 2 > self._asked_at for handle in handles)

    def _queued(self, handle: JobHandle) -> Entry | None:
        entry = self._queue.get(handle.id)
        # Ids are recycled: the name says whose it is.
        return entry if entry is not None and entry.name.endswith(handle.key) else None

    def _waits(self, handle: JobHandle) -> bool:
        entry = self._queued(handle)
        return entry is not None and entry.waits

    async def _cancelled_by_us(self, keys: Collection[str]) -> frozenset[str]:
        """Returns which of these jobs a driver has cancelled."""
        if not keys:
            return frozenset()
        answer = await self.shell.run(folders.marked_cancelled(self._root, keys))
        return frozenset(answer.text.split())

    async def _history(self, handles: Sequence[JobHandle]) -> tuple[Accounting, dict[str, Entry]]:
        """Asks the accounting for jobs, by their ids."""
        if not handles or not self._accounting:
            return Accounting.NONE, {}
        command = self._scheduler.list_history(
            [handle.id for handle in handles], min(handle.submitted_at for handle in handles)
        )
        if not command:
            return Accounting.NONE, {}
        answer = await self.shell.run(command)
        if self._scheduler.has_no_accounting(answer.code, answer.err):
            self._accounting = False
            return Accounting.NONE, {}
        if answer.code:
            return Accounting.AWAY, {}
        return Accounting.ANSWERED, self._scheduler.parse_history(answer.text)

    async def _end_jobs(self, entries: Sequence[tuple[str, Entry]]) -> None:
        """Ends jobs: those that wait at once, those that run by a signal to the runner, and for sure later."""
        waiting = [entry.id for _, entry in entries if entry.waits]
        running = [(key, entry) for key, entry in entries if not entry.waits]
        lines = [folders.enter(self._root)]
        if waiting:
            lines.append(self._scheduler.withdraw(waiting))
        if running:
            lines.append(self._scheduler.terminate([entry.id for _, entry in running]))
        for key, entry in running:
            # Left on the host: whoever asked for it may be gone before the grace is over.
            wait = f"sleep $(($(cat jobs/{key}/grace) + {_SLACK})); {self._scheduler.kill(entry)}"
            lines.append(f"setsid sh -c {shlex.quote(wait)} >/dev/null 2>&1 </dev/null &")
        answer = await self.shell.run("\n".join([*lines, "true"]))
        if answer.err and self._scheduler.is_transient(answer.err):
            raise BackendUnavailable(f"{self._where} did not end the job: {answer.reason}")

    def _handle(self, key: str, noted: Sequence[str]) -> JobHandle:
        job_id, submitted = noted
        return JobHandle(key, self._scheduler.kind, job_id, self._cluster, float(submitted))


def _may_have_ended(entry: Entry | None) -> bool:
    return entry is None or entry.has_ended or (entry.fact is not None and entry.fact.may_restart)


def _key_of(name: str, keys: set[str]) -> str:
    """Returns which of the keys a job's name, with its prefix, ends with; empty for none."""
    if name in keys:
        return name
    return next((key for key in keys if name.endswith(key)), "")
