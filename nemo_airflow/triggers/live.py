"""Shows how a job fares while it does: in an XCom of its task, which Airflow's pages read without any other machine.

What it costs. Each write is a request to Airflow's API, which a triggerer's supervisor makes itself and one at a time;
it starts triggers and sends events in between. So a process has one write under way at a time. A change of the job's
state is written at once: that is a handful in a job's life. All else is written at a job's own pace, and so that all
jobs of a process together take a twentieth of the supervisor's time, whatever a write takes: the more jobs, the older
the metrics that are shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from nemo_airflow.clean import clean_value
from nemo_airflow.phases import AT_ONCE, LATER, JobView
from nemo_airflow.threads import Threads

T = TypeVar("T")

LIVE_KEY = "nemo_live"
"""Key of the XCom."""

_SHARE = 20.0
"""Seconds of rest for each second that a write took, where it is not urgent."""

_READ_WITHIN = 2.0
"""Seconds for which the following of a job waits for what an earlier follower has seen."""

_LAST_WITHIN = 10.0
"""Seconds for which the end of the following waits for the last write."""

_IDS = ("dag_id", "run_id", "task_id", "map_index")


def ids_of(task_instance: Any) -> dict[str, Any]:
    """Returns what identifies the XComs of a task instance; a trigger does not always know its own."""
    return {name: getattr(task_instance, name, None) for name in _IDS}


class LiveXCom:
    """Keeps the XCom of one task instance up to date while its job is followed, as an asynchronous context.

    An error of a write is a warning, and the write is made again later. Outside Airflow nothing is written.

    Args:
        view: What is known of the job.
        task: What :func:`ids_of` returns of the task instance; None where nothing is to be written.
        warn: Called with a warning, in one line.
    """

    def __init__(self, view: JobView, task: Mapping[str, Any] | None, warn: Callable[[str], None]) -> None:
        from airflow.sdk.execution_time import task_runner

        self.view = view
        self._task = task
        self._warn = warn
        # Kept: with dag.test() the module has none while another thread uses it.
        self._comms: Any = getattr(task_runner, "SUPERVISOR_COMMS", None) if task is not None else None
        self._pace = math.inf
        """How urgent what is new is; infinite where nothing is."""
        self._news = asyncio.Event()
        self._written = -math.inf
        self._has_failed = False
        self._is_closing = False
        self._resumed: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        view.on_change = self._note

    async def __aenter__(self) -> LiveXCom:
        if self._comms is None:
            self.view.resume(None)
        else:
            self._resumed = asyncio.get_running_loop().create_future()
            self._writing = asyncio.create_task(self._run(), name="nemo-live")
            await asyncio.wait({self._resumed}, timeout=_READ_WITHIN)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._writing is None:
            return
        self._is_closing = True
        self._news.set()
        try:
            if kind is None or issubclass(kind, Exception):
                await asyncio.wait({self._writing}, timeout=_LAST_WITHIN)
        finally:
            self._writing.cancel()

    async def during(self, following: Awaitable[T]) -> T:
        """Keeps it up to date while a job is followed, and returns what that returns."""
        async with self:
            return await following

    def reopen(self) -> None:
        """Goes on where whoever has followed the job in this try has ended. Blocks."""
        self._resume(self._read())

    def write(self, pace: float = AT_ONCE) -> None:
        """Writes what is known now. Blocks."""
        if self._comms is not None:
            self._pace, self._written = math.inf, time.monotonic()
            self._note_end(_attempt(self._put))

    def _read(self) -> Mapping[str, Any] | None:
        value = _attempt(self._get) if self._comms is not None else None
        if isinstance(value, Exception):
            self._note_end(value)
        return value if isinstance(value, Mapping) else None

    def _note(self, pace: float) -> None:
        if pace < self._pace:
            self._pace = pace
            self._news.set()

    async def _run(self) -> None:
        threads = _threads(os.getpid())
        if self.view.is_resuming:
            self._resume(await threads.call(self._read))
        assert self._resumed is not None  # noqa: S101 - for the type checker: who has started this has made it
        self._resumed.set_result(None)
        while True:
            if not self._is_closing:
                await self._news.wait()
            await self._wait_for_turn()
            if math.isinf(self._pace):
                return  # at the end, with nothing new
            self._pace = math.inf
            if not self._is_closing:
                self._news.clear()
            error = await threads.call(_attempt, self._put)
            self._written = time.monotonic()
            self._note_end(error)
            if error is not None:
                if self._is_closing:
                    return
                self._note(LATER)

    def _resume(self, earlier: Mapping[str, Any] | None) -> None:
        try:
            self.view.resume(earlier if earlier is not None and earlier.get("key") == self.view.key else None)
        except (KeyError, TypeError, ValueError) as error:
            self._warn(f"the XCom {LIVE_KEY!r} is not as nemo-airflow writes it, and begins anew: {error!r}")

    async def _wait_for_turn(self) -> None:
        """Waits until what is new may be written; less where more urgent things become new."""
        while (pause := self._written + self._pace - time.monotonic()) > 0 and not self._is_closing:
            await self._wait_for_news(pause)
        turn = time.monotonic() + (_rest.turn() if self._pace > AT_ONCE else 0)
        while (pause := turn - time.monotonic()) > 0 and self._pace > AT_ONCE and not self._is_closing:
            await self._wait_for_news(pause)

    async def _wait_for_news(self, seconds: float) -> None:
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()

    def _put(self) -> None:
        from airflow.sdk.execution_time.comms import SetXCom
        from airflow.sdk.execution_time.request_handlers import handle_set_xcom

        begun = time.monotonic()
        # Not by an XCom back-end, which would make a file of each: this is for Airflow's own pages.
        self._send(SetXCom(key=LIVE_KEY, value=clean_value(self.view.to_json()), **(self._task or {})), handle_set_xcom)
        _rest.took(time.monotonic() - begun)

    def _get(self) -> Any:
        from airflow.sdk.execution_time.comms import GetXCom
        from airflow.sdk.execution_time.request_handlers import handle_get_xcom

        return self._send(GetXCom(key=LIVE_KEY, **(self._task or {})), handle_get_xcom)

    def _send(self, message: Any, handle: Callable[..., tuple[Any, Any]]) -> Any:
        # What dag.test() has instead of a supervisor is for one thread: another one asks the API itself.
        supervisor = getattr(self._comms, "supervisor", None)
        answer = handle(supervisor.client, message)[0] if supervisor is not None else self._comms.send(message)
        if hasattr(answer, "error"):
            raise RuntimeError(f"{answer.error}: {answer.detail}")
        return getattr(answer, "value", None)

    def _note_end(self, error: Any) -> None:
        if error is None:
            self._has_failed = False
        elif not self._has_failed:
            self._has_failed = True
            self._warn(f"how the job fares is not shown in Airflow just now; the job goes on: {error!r}")


class _Rest:
    """Gives the writes of a process that are not urgent their turns."""

    def __init__(self) -> None:
        self._pause = 0.0
        self._next = 0.0

    def turn(self) -> float:
        """Returns after how many seconds it is the turn of who asks."""
        now = time.monotonic()
        turn = max(self._next, now)
        self._next = turn + self._pause
        return turn - now

    def took(self, seconds: float) -> None:
        """Notes what a write took."""
        self._pause = (self._pause + _SHARE * seconds) / 2


_rest = _Rest()


def _attempt(call: Callable[[], Any]) -> Any:
    """Returns what a call returns, or the error that it raises: what Airflow raises must not end what follows a job."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - as above
        return error


@functools.cache
def _threads(pid: int) -> Threads:
    """Returns the one thread of this process that writes; a fork does not have its parent's."""
    return Threads("live", calls=1, transfers=1)
