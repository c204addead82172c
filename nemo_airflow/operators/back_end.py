"""How a worker talks to the back-end of its task: one that is away is asked again for a while."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_exponential,
    wait_random,
)

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable, ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.job import Job, JobHandle
from nemo_airflow.jobs.service import JobService

PATIENCE = 120.0
"""Seconds for which a worker waits for a back-end that is away. After that the task's next try does."""

_KILL_TIMEOUT = 20.0

T = TypeVar("T")


class BackEnd:
    """Where the job of a task runs, for the code of a worker, which waits for each answer.

    Args:
        executor: What says how to reach it.
        warn: Takes a warning, as a logger does: that the back-end is away.
    """

    def __init__(self, executor: Executor, warn: Callable[..., None]) -> None:
        self.executor = executor
        self._warn = warn

    def find(self, key: str) -> JobHandle | None:
        """Returns the job of a key, or None.

        Raises:
            BackendUnavailable: The back-end was away for too long.
        """
        return self._ask(lambda driver: driver.find([key])).get(key)

    def reads_zstd(self) -> bool:
        """Returns whether jobs there are known to read ``tar.zst``; see :meth:`Driver.reads_zstd`.

        Raises:
            BackendUnavailable: The back-end was away for too long.
        """
        return self._ask(lambda driver: driver.reads_zstd(self.executor))

    def render(self, job: Job) -> Request:
        """Returns the request for a job.

        Raises:
            ExecutorArgumentError: The executor does not send the artifacts that the job is given.
        """
        request = self.executor.render(job)
        if job.inputs and request.inputs != job.inputs:
            raise ExecutorArgumentError(
                f"{type(self.executor).__name__} sends no artifacts to its jobs: "
                "have its render() give the Request inputs=job.inputs"
            )
        return request

    def foresee(self, request: Request) -> str:
        """Returns what the back-end says of a job that is not submitted; see :meth:`Driver.foresee`.

        Raises:
            BackendUnavailable: The back-end is away.
        """
        return blocking.run(self._with_driver(lambda driver: driver.foresee(request)))

    def submit(self, request: Request) -> JobHandle:
        """Submits a job, and returns it.

        Raises:
            SubmitError: The back-end refuses it.
            NotStarted: It is queued, needs its package from here, and the request does not wait.
            BackendUnavailable: The back-end was away for too long.
        """
        return self._ask(lambda driver: driver.submit(request))

    def end(self, key: str) -> bool:
        """Cancels the job of a key, and returns whether there is one.

        Raises:
            BackendUnavailable: The back-end was away for too long.
        """
        handle = self.find(key)
        if handle is not None:
            self._ask(lambda driver: driver.cancel([handle]))
        return handle is not None

    def release(self, handle: JobHandle) -> None:
        """Lets go of an ended job whose outputs are kept.

        Raises:
            BackendUnavailable: The back-end was away for too long.
        """
        self._ask(lambda driver: driver.release([handle]))

    def cancel_at_once(self, handle: JobHandle) -> None:
        """Cancels a job of a task that is being killed: there is no time to ask twice.

        Raises:
            BackendUnavailable: The back-end is away.
            TimeoutError: It took too long to answer.
        """
        blocking.run(self._with_driver(lambda driver: driver.cancel([handle])), _KILL_TIMEOUT)

    def _ask(self, call: Callable[[Driver], Coroutine[Any, Any, T]]) -> T:
        patiently = Retrying(
            retry=retry_if_exception_type(BackendUnavailable),
            wait=wait_exponential(multiplier=0.5, max=15) + wait_random(0, 1),  # not in step with other workers
            stop=stop_after_delay(PATIENCE),
            before_sleep=self._say_why_it_waits,
            reraise=True,
        )
        return patiently(lambda: blocking.run(self._with_driver(call)))

    async def _with_driver(self, call: Callable[[Driver], Coroutine[Any, Any, T]]) -> T:
        # The driver of this process: a login is paid for once.
        return await call(JobService.shared(self.executor).driver)

    def _say_why_it_waits(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            self._warn("The back-end is away, trying again for %.0f s: %s", PATIENCE, state.outcome.exception())
