"""Fetches the outputs of a job that has ended. It is given up when nothing moves any more, not after a fixed time."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential, wait_random

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, OutputsLost
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.intake import Intake
from nemo_airflow.folders import folder_size
from nemo_airflow.job import JobHandle
from nemo_airflow.jobs.service import JobService
from nemo_airflow.progress import Progress

T = TypeVar("T")

STALL = 300.0
"""Seconds without a byte after which a transfer is given up, and asked for anew by the task's next try."""

_LOOK, _LOOK_SHARE = 1.0, 20.0
"""Least seconds between two looks at what has come, and how many times as long as a look took."""

_NAMED = 10
"""Outputs that are left out which the warning names."""


async def collect_outputs(
    executor: Executor,
    handle: JobHandle,
    into: Path,
    *,
    counts: Mapping[str, int],
    inform: Callable[[str], None],
    warn: Callable[[str], None],
    stall: float = STALL,
    intake: Intake | None = None,
) -> None:
    """Fetches a job's outputs into a folder, which is emptied first.

    With an intake they only pass there, on their way to it; after a cut all come again.

    Args:
        executor: Where the job ran.
        handle: The job.
        into: The folder.
        counts: Files and bytes of the outputs, as the job counted them; see :class:`~nemo_airflow.follow.Outcome`.
        inform: Called with how far it has come.
        warn: Called with which outputs cannot be kept.
        stall: Seconds without a byte after which it is given up.
        intake: What takes each output as soon as it has come.

    Raises:
        BackendUnavailable: Nothing more has come for ``stall`` seconds.
        OutputsLost: The back-end has no outputs of the job any more.
        ExecutorError: The back-end refuses.
        OSError: The disk here is full.
    """
    progress = intake.progress if intake is not None else Progress("outputs fetched", inform, counts.get("bytes"))
    furthest, since = 0, time.monotonic()

    def is_over(state: RetryCallState) -> bool:
        nonlocal furthest, since
        if progress.size > furthest:
            furthest, since = progress.size, time.monotonic()
        return time.monotonic() - since >= stall

    def say(state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            inform(f"the outputs cannot be fetched now, trying again: {state.outcome.exception()}")

    left_out: list[str] = []
    files: list[Path] = []
    asked = 0

    async def fetch() -> None:
        nonlocal files, asked
        driver = JobService.shared(executor).driver
        left_out.clear()
        asked += 1
        if intake is None:
            await asyncio.to_thread(_empty, into)
            progress.begin_anew()
            files = await _watched(driver.collect(handle, into, left_out.append), into, progress, stall)
            return
        # A folder of its own each time: what has come before may be on its way.
        place = into / str(asked)
        try:
            files = await _watched(driver.collect(handle, place, left_out.append, intake), None, progress, stall)
        except ExecutorError:
            intake.check()  # what has kept the outputs from being taken says more
            raise
        if not intake.has_all(left_out.append):
            await fetch()

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(BackendUnavailable),
        wait=wait_exponential(multiplier=0.5, max=30) + wait_random(0, 1),
        stop=is_over,
        before_sleep=say,
        reraise=True,
    ):
        with attempt:
            await fetch()
    if counts.get("files") and not files and not left_out:
        raise OutputsLost(
            f"the back-end has none of the {counts['files']} files any more that job {handle.key} has left"
        )
    if left_out:
        more = f"; and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        warn(f"these outputs cannot be kept, all others are: {'; '.join(left_out[:_NAMED])}{more}")


async def _watched(call: Coroutine[Any, Any, T], into: Path | None, progress: Progress, stall: float) -> T:
    """Awaits a transfer, as long as it moves: into a folder that grows, or where that is told otherwise."""
    fetching = asyncio.create_task(call)
    pause = _LOOK
    try:
        while not (await asyncio.wait({fetching}, timeout=pause))[0]:
            begun = time.monotonic()
            if into is not None:
                progress.reach(await asyncio.to_thread(folder_size, into))
            pause = max(_LOOK, (time.monotonic() - begun) * _LOOK_SHARE)
            if progress.silence >= stall:
                raise BackendUnavailable(f"nothing of the outputs has come for {stall:.0f} s")
        return fetching.result()
    finally:
        if not fetching.done():
            fetching.cancel()
            await asyncio.wait({fetching})


def _empty(folder: Path) -> None:
    """Makes the folder, without what an attempt that broke off has left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
