"""Where the outputs of a job are kept: in its run, in the shared store, and on this disk while the tracker is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential, wait_random

from nemo_airflow.exceptions import StoreUnavailable, TrackingError
from nemo_airflow.progress import Progress
from nemo_airflow.store.address import configured_store
from nemo_airflow.store.shared import sha256_of
from nemo_airflow.store.trees import TreeWriter
from nemo_airflow.tracking import calls, reserved
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, PartlyRefusedError, RunRef, UploadWatch
from nemo_airflow.tracking.calls import Call
from nemo_airflow.tracking.outbox import Outbox
from nemo_airflow.tracking.passage import Item, Passage
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.tracking.undelivered import Undelivered

T = TypeVar("T")

_UPLOADERS = 2
"""Batches that are uploaded at one time."""

_REFUSALS = 3
"""Refused files, with none accepted, after which the tracker refuses all."""

_NAMED = 10
"""Refused files that a warning names."""


class Keepers:
    """Keeps what passes: each file in the shared store and in the job's run.

    Args:
        run: The job's run; opened here if it is not open.
        passage: Where the files come from. It is started by the caller.
        inform: Called with what is tried again.
        warn: Called with what is not as it was asked for, in one line.
        stall: Seconds without a byte after which a tracker, or a store, is given up.
        stored: Digest of the files as a tree of the shared store, where that has them already; else empty.
    """

    def __init__(
        self,
        run: TrackedRun,
        passage: Passage,
        inform: Callable[[str], None],
        warn: Callable[[str], None],
        stall: float,
        stored: str = "",
    ) -> None:
        self._run = run
        self._passage = passage
        self._progress = passage.progress
        self._inform = inform
        self._warn = warn
        self._stall = stall
        self._names = reserved.Names()
        self._lock = threading.Lock()
        self._stored = 0
        self._refused: dict[str, TrackingError] = {}
        self._away: TrackingError | None = None
        self._undelivered = Undelivered(run.job.key, run.began)
        self._outbox = Outbox()
        self._spooled = 0
        self._in_store = stored
        store = None if stored else configured_store()
        self._tree = TreeWriter(store, self._patiently) if store is not None else None
        passage.add_keeper(self._share)
        passage.add_keeper(self._upload, _UPLOADERS)

    def __enter__(self) -> Keepers:
        return self

    def __exit__(self, *_: object) -> None:
        self._passage.close()
        if self._tree is not None:
            self._tree.close()
        self._undelivered.discard()

    def finish(self) -> bool:
        """Waits until all has been kept; see :meth:`.OutputKeeper.keep`."""
        self._passage.finish()
        if self._refused and not self._stored:
            raise next(iter(self._refused.values()))
        if not self._passage.count:
            return True
        if self._tree is not None:
            self._in_store = self._tree.finish()
        if self._in_store:
            self._record(calls.tags({OUTPUTS_DIGEST: self._in_store}), self._outbox.put)
        if not self._refused:
            self._record(calls.outputs_kept(), self._outbox.file_calls.append)
        if self._away is not None:
            self._complete_spool()
        if self._names.of_record:
            self._warn(
                f"the job's output {reserved.RECORD!r} has the name of the run's record, so it is kept as "
                f"{self._names.of_record!r}"
            )
        if self._refused:
            names = list(self._refused)
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            reason = self._refused[names[0]]
            self._warn(f"these outputs are refused, all others are kept: {', '.join(names[:_NAMED])}{more}: {reason}")
        return not self._refused

    def _paths(self, item: Item) -> list[str]:
        with self._lock:
            return [self._names.path_of(name) for name in item.names]

    def _share(self, items: list[Item]) -> None:
        """Puts files into the shared store; where there is none to put them into it only reads their digests."""
        for item in items:
            if self._tree is None:
                item.sha256 = sha256_of(item.path)
                self._passage.finish_item(item)
                continue
            self._tree.add(item.path, *self._paths(item)).add_done_callback(self._when_shared(item))

    def _when_shared(self, item: Item) -> Callable[[Future[str]], None]:
        def note(sent: Future[str]) -> None:
            if sent.cancelled():
                return
            if error := sent.exception():
                self._passage.fail(error)
                return
            item.sha256 = sent.result()
            self._passage.finish_item(item)

        return note

    def _upload(self, items: list[Item]) -> None:
        """Puts files into the run; onto this disk while the tracker is away."""
        waiting = {path: item.path for item in items for path in self._paths(item)}
        if self._away is None:
            try:
                self._send(waiting)
            except TrackingError as error:
                if not error.transient:
                    raise
                self._away = error
        if self._away is not None and waiting:
            self._spool(waiting)
        for item in items:
            self._passage.finish_item(item)

    def _send(self, waiting: dict[str, Path]) -> None:
        """Puts files into the run, and takes from them what is stored or refused for good.

        Raises:
            TrackingError: The tracker is away, or refuses all for good.
        """
        count = len(waiting)
        refusal: TrackingError | None = None
        ref = self._patiently(self._open)
        watch = _Watch(self._progress, waiting)
        try:
            self._patiently(lambda: self._run.tracker.artifacts(ref, dict(waiting), watch))
            waiting.clear()
        except PartlyRefusedError as error:
            refusal = error.__cause__ if isinstance(error.__cause__, TrackingError) else error
        except TrackingError as error:
            if error.transient:
                raise
            refusal = error
        finally:
            with self._lock:
                self._stored += count - len(waiting)
        if refusal is None:
            return
        if count == len(waiting) > 1:  # nothing is stored, and not all was tried: a few bad files stand for no others
            names = list(waiting)
            for half in (names[: count // 2], names[count // 2 :]):
                part = {name: waiting.pop(name) for name in half}
                try:
                    self._send(part)
                finally:
                    waiting.update(part)
            return
        self._refuse(waiting, refusal)
        waiting.clear()

    def _refuse(self, waiting: Mapping[str, Path], error: TrackingError) -> None:
        with self._lock:
            self._refused.update(dict.fromkeys(waiting, error))
            if not self._stored and len(self._refused) >= _REFUSALS:
                raise error

    def _spool(self, waiting: Mapping[str, Path]) -> None:
        with self._lock:
            try:
                self._undelivered.add_files(waiting)
            except OSError as error:
                raise OSError(f"the tracker is away, and the outputs cannot wait on this disk: {error}") from error
            self._spooled += len(waiting)

    def _record(self, call: Call, put: Callable[[Call], object]) -> None:
        """Makes a call of the tracker; while that is away the call waits, too."""
        if self._away is None:
            try:
                ref = self._patiently(self._open)
                self._patiently(lambda: call.make(self._run.tracker, ref))
            except TrackingError as error:
                if not error.transient:
                    raise
                self._away = error
        if self._away is not None:
            put(call)

    def _complete_spool(self) -> None:
        kept = self._undelivered.keep(self._run, self._outbox, "")
        if kept.lost:
            raise OSError(f"the tracker is away, and the outputs cannot wait in {kept.folder}: {'; '.join(kept.lost)}")
        self._warn(
            f"the tracker is away ({self._away}), so {self._spooled} outputs wait in {kept.folder}: they are delivered "
            "when it is back, by whoever follows a job on this machine, or by 'nemo-airflow sync'"
        )

    def _open(self) -> RunRef:
        with self._lock:
            if self._run.ref is None:
                self._run = self._run.open()
            assert self._run.ref is not None  # noqa: S101 - for the type checker: an open run has it
            return self._run.ref

    def _patiently(self, call: Callable[[], T]) -> T:
        """Makes a call; again, where it may succeed later, as long as something moves now and then."""

        def say(state: RetryCallState) -> None:
            if state.attempt_number == 1 and state.outcome is not None:
                self._inform(f"the outputs are not kept yet, trying again: {state.outcome.exception()}")

        retrying = Retrying(
            retry=retry_if_exception(_may_succeed_later),
            wait=wait_exponential(multiplier=0.5, max=15) + wait_random(0, 1),
            stop=lambda state: self._progress.silence >= self._stall,
            before_sleep=say,
            reraise=True,
        )
        return retrying(call)


class _Watch(UploadWatch):
    """Takes what is stored from the files that wait: after a failure only the others are sent."""

    def __init__(self, progress: Progress, waiting: dict[str, Path]) -> None:
        self._progress = progress
        self._waiting = waiting

    def sent(self, size: int) -> None:
        self._progress.add(size)

    def stored(self, path: str) -> None:
        self._waiting.pop(path, None)


def _may_succeed_later(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) or (isinstance(error, TrackingError) and error.transient)
