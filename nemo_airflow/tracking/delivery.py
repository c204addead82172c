"""Delivers what waits in the spool to its trackers, exactly once, whoever does it and whenever that one is killed.

An entry is delivered as it would have been while the job ran: its run is found by the job's key, points are told apart
by their marks, and a run that has ended stays as it is. So an entry can be delivered again where its deliverer died
midway, and it is removed only when all of it is there.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import threading
import time
from collections.abc import Iterator

from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.artifacts import files_under
from nemo_airflow.tracking.buffer import PointBuffer
from nemo_airflow.tracking.calls import Call
from nemo_airflow.tracking.outbox import LIMIT, Outbox, Refusal
from nemo_airflow.tracking.point_file import PointFile
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.spool import Entry, Spool

_log = logging.getLogger(__name__)

_EVERY = 60.0
"""Seconds between two looks at the spool in a process that follows jobs."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of an entry.

    Attributes:
        entry: The entry.
        contents: What it has, in a few words.
        run_id: Its run, or empty.
        problem: Why it was not delivered; empty if it was.
        refused: Parts of it that the tracker refused; all others are recorded.
    """

    entry: Entry
    contents: str
    run_id: str = ""
    problem: str = ""
    refused: tuple[str, ...] = ()


def deliver_all(spool: Spool, *, with_refused: bool = False) -> Iterator[Report]:
    """Delivers what waits, and yields what became of each entry. Blocks.

    Args:
        spool: The spool.
        with_refused: Whether to try also what a tracker refused for good earlier.
    """
    if not spool.entries():
        return
    unreachable: dict[str, str] = {}
    with spool.hold() as is_held:
        for entry in spool.entries():
            if is_held:
                yield _deliver(entry, unreachable, with_refused=with_refused)
            else:
                yield Report(entry, "", problem="another process is delivering")
        if is_held:
            spool.clean()


def _deliver(entry: Entry, unreachable: dict[str, str], *, with_refused: bool) -> Report:
    """Delivers one entry.

    Args:
        entry: The entry.
        unreachable: Trackers, in their JSON form, that could not be reached, with the reason.
        with_refused: Whether to try what was refused earlier.
    """
    if not entry.may_be_removed:
        return Report(entry, "", problem=f"it belongs to user {entry.folder.stat().st_uid}, who can deliver it")
    try:
        data = entry.read()
        run = TrackedRun.from_json(data["run"])
        outbox = _outbox(entry, data)
    except (ValueError, KeyError, TypeError, OSError, NemoAirflowError) as error:
        return Report(entry, "", problem=f"it cannot be read: {type(error).__name__}: {error}")
    tracker = json.dumps(run.tracker.to_json(), sort_keys=True)
    report = Report(entry, _describe(outbox), run.ref.run_id if run.ref else "")
    problem = unreachable.get(tracker) or ("" if with_refused else entry.refusal)
    if problem:
        return dataclasses.replace(report, problem=problem)
    try:
        run = run if run.ref is not None else run.open()
        assert run.ref is not None  # noqa: S101 - for the type checker: it is open
        outbox.send_records(run.tracker, run.ref)
        outbox.send_files(run.tracker, run.ref)
        refused = list(outbox.refusals)
        if not_at_all := [refusal for refusal in refused if not refusal.is_partial]:
            raise TrackingError(_name(not_at_all[0]))
    except Exception as error:  # noqa: BLE001 - a tracker may raise what it likes: that costs no other entry
        if isinstance(error, TrackingError) and error.transient:
            unreachable[tracker] = str(error)
        else:
            entry.refuse(str(error) or type(error).__name__)
        return dataclasses.replace(report, problem=str(error) or type(error).__name__)
    entry.remove()
    return dataclasses.replace(report, run_id=run.ref.run_id, refused=tuple(map(_name, refused)))


def _outbox(entry: Entry, data: dict[str, list[dict[str, object]]]) -> Outbox:
    outbox = Outbox(PointBuffer(LIMIT, file=PointFile(entry.points)))
    for waiting, name in (
        (outbox.calls, "calls"),
        (outbox.last_calls, "last_calls"),
        (outbox.file_calls, "file_calls"),
    ):
        waiting.extend(map(Call.from_json, data[name]))
    if entry.files is not None:  # before the call that says that all are there
        outbox.file_calls.appendleft(
            calls.files({path.as_posix(): entry.files / path for path in files_under(entry.files)})
        )
    return outbox


def _describe(outbox: Outbox) -> str:
    return ", ".join([*outbox.records_left, *outbox.files_left])


def _name(refusal: Refusal) -> str:
    return f"{refusal.call}: {refusal.reason}"


_next: dict[int, float] = {}
"""When each process may look at the spool again, in its own monotonic time; forks have a copy."""


def deliver_soon() -> None:
    """Delivers in a thread what waits on this machine, at most once a minute in a process. Returns at once."""
    pid = os.getpid()
    if time.monotonic() < _next.get(pid, 0.0):
        return
    _next[pid] = math.inf
    # It does not keep the process alive: what is half delivered is delivered again.
    threading.Thread(target=_deliver_in_background, args=(pid,), name="nemo-spool", daemon=True).start()


def _deliver_in_background(pid: int) -> None:
    try:
        for report in deliver_all(Spool()):
            if not report.problem:
                _log.info("delivered what waited for run %s: %s", report.run_id, report.contents)
                for refused in report.refused:
                    _log.warning("of run %s: %s", report.run_id, refused)
    except (NemoAirflowError, OSError) as error:
        _log.warning("what waits for trackers on this machine cannot be delivered: %s", error)
    finally:
        _next[pid] = time.monotonic() + _EVERY
