"""Which failures of a job are worth another try: an Airflow retry policy by failure kind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import RetryDecision, RetryPolicy

from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, JobFailed, SubmitError
from nemo_airflow.job import FailureKind

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

WORTH_A_RETRY = (FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.LOST, FailureKind.OUTPUTS)
"""Kinds of failure whose cause is outside the job, so that another try may succeed."""


class FailureKindRetryPolicy(RetryPolicy):
    """Tries again after retryable failures, and fails at once after the others.

    How often is the task's ``retries``. A back-end that was away is always worth a retry, which finds
    the job again; an error that is not the failure of a job is left to Airflow.

    Args:
        kinds: The kinds of failure to try again after: :class:`~nemo_airflow.job.FailureKind` members
            or their values; those whose cause is outside the job when None.
        delay: Seconds before the next try; the task's ``retry_delay`` when None.

    Raises:
        ValueError: There is no such kind.
    """

    def __init__(self, kinds: Iterable[str] | None = None, delay: float | None = None) -> None:
        self.kinds = tuple(FailureKind(kind) for kind in (WORTH_A_RETRY if kinds is None else kinds))
        self.delay = delay

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """See :meth:`airflow.sdk.RetryPolicy.evaluate`."""
        delay = None if self.delay is None else timedelta(seconds=self.delay)
        if isinstance(exception, BackendUnavailable):
            return RetryDecision.retry(delay, "the back-end was away")
        if isinstance(exception, (JobFailed, SubmitError)):
            kind = FailureKind.parse(exception.kind)
            if kind in self.kinds:
                return RetryDecision.retry(delay, f"the job failed ({kind}): retryable")
            return RetryDecision.fail(f"the job failed ({kind}): not retryable")
        if isinstance(exception, ExecutorError):
            return RetryDecision.fail("the back-end refused the request: not retryable")
        return RetryDecision.default()

    def serialize(self) -> dict[str, Any]:
        """Returns the policy as plain JSON types."""
        return {"kinds": [str(kind) for kind in self.kinds], "delay": self.delay}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> FailureKindRetryPolicy:
        """The inverse of :meth:`serialize`."""
        return cls(data["kinds"], data["delay"])
