"""Which failures the retry policy tries again after."""

import pytest
from airflow.sdk.definitions.retry_policy import RetryAction

from nemo_airflow.exceptions import BackendUnavailable, ConfigError, ExecutorError, JobFailed, SubmitError
from nemo_airflow.job import FailureKind
from nemo_airflow.operators import FailureKindRetryPolicy

WORTH = {FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.LOST}


def action(policy, error):
    return policy.evaluate(error, 1, 3).action


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("error", [lambda kind: JobFailed("it broke", kind), lambda kind: SubmitError("no", kind)])
def test_what_is_worth_a_retry(kind, error):
    expected = RetryAction.RETRY if kind in WORTH else RetryAction.FAIL
    assert action(FailureKindRetryPolicy(), error(kind)) is expected


def test_other_kinds_can_be_named():
    policy = FailureKindRetryPolicy(["out_of_memory", FailureKind.QUOTA], delay=60)
    decision = policy.evaluate(JobFailed("it broke", "out_of_memory"), 1, 3)
    assert (decision.action, decision.retry_delay.total_seconds()) == (RetryAction.RETRY, 60)
    assert action(policy, JobFailed("it broke", "lost")) is RetryAction.FAIL


def test_errors_that_are_no_jobs():
    policy = FailureKindRetryPolicy()
    assert action(policy, BackendUnavailable("away")) is RetryAction.RETRY
    assert action(policy, ExecutorError("refused")) is RetryAction.FAIL
    assert action(policy, ConfigError("wrong")) is RetryAction.DEFAULT
    assert action(policy, KeyError("x")) is RetryAction.DEFAULT


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="bad_luck"):
        FailureKindRetryPolicy(["bad_luck"])


def test_policy_comes_back_from_its_plain_form():
    policy = FailureKindRetryPolicy(["quota"], delay=5)
    again = FailureKindRetryPolicy.deserialize(policy.serialize())
    assert (again.kinds, again.delay) == (policy.kinds, policy.delay)
