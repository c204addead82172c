"""Which failures the retry policy tries again after."""

import copy
import re

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.definitions.retry_policy import RetryAction
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow import Config, NemoRunOperator
from nemo_airflow.exceptions import (
    BackendUnavailable,
    ConfigError,
    ExecutorArgumentError,
    ExecutorError,
    JobFailed,
    MissingExtraError,
    PackagingError,
    SettingsError,
    StoreUnavailable,
    SubmitError,
)
from nemo_airflow.job import FailureKind
from nemo_airflow.operators import FailureKindRetryPolicy
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.run import _plain_errors

WORTH = {FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.LOST, FailureKind.OUTPUTS}


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


@pytest.mark.parametrize(
    "error",
    [
        BackendUnavailable("away"),
        StoreUnavailable("away"),
        SettingsError("the secrets back-end did not answer"),
        ExecutorError("the login was refused"),
        *(SubmitError("no", kind) for kind in FailureKind if kind is not FailureKind.USER_ERROR),
    ],
    ids=repr,
)
def test_submission_that_another_try_may_mend_is_left_to_the_retries_and_their_policy(error):
    with pytest.raises(type(error)) as caught, _plain_errors():
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        ConfigError("wrong"),
        PackagingError("not committed"),
        ExecutorArgumentError("nodes: expected int"),
        SubmitError("no such partition", FailureKind.USER_ERROR),
        MissingExtraError("DockerExecutor", "docker"),
    ],
    ids=repr,
)
def test_fault_of_the_author_fails_the_task_for_good(error):
    with pytest.raises(AirflowFailException, match=re.escape(str(error))), _plain_errors():
        raise error


def test_policy_is_asked_of_a_kind_that_only_a_newer_version_knows():
    assert action(FailureKindRetryPolicy(), JobFailed("it broke", "cosmic_ray")) is RetryAction.FAIL


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="bad_luck"):
        FailureKindRetryPolicy(["bad_luck"])


def test_policy_comes_back_from_its_plain_form():
    policy = FailureKindRetryPolicy(["quota"], delay=5)
    again = FailureKindRetryPolicy.deserialize(policy.serialize())
    assert (again.kinds, again.delay) == (policy.kinds, policy.delay)


def test_a_retry_asks_for_more_after_each_attempt_that_ran_out_of_memory(task_context, store, defaults):
    with DAG("grows", schedule=None) as dag:
        defaults["env"]["GB"] = "{{ 16 * 2 ** failures.out_of_memory }}"
        NemoRunOperator(task_id="t", config=Config(jobs.need_memory, 64), **defaults)
    tries = []

    def attempt(max_tries=3):
        context = task_context(dag)
        context["ti"].max_tries = max_tries
        operator = context["task"] = copy.deepcopy(dag.get_task("t"))
        operator.render_template_fields(context)
        tries.append(operator.env["GB"])
        return operator.execute(context)

    for _ in range(2):
        with pytest.raises(JobFailed):
            attempt()
    assert attempt() == 64
    attempt()  # of the same try: its job has ended well, and is found again
    assert tries == ["16", "32", "64", "64"]
    with pytest.raises(JobFailed):
        attempt(max_tries=4)  # cleared
    assert tries[-1] == "16"


def test_a_failure_is_counted_once_and_another_kind_apart(store):
    attempts.remember(store, attempts.Attempt(1, "k-1", "d", 3))
    for _ in range(2):
        attempts.consume(store, "k-1", FailureKind.OUT_OF_MEMORY)
    following = attempts.take_over(attempts.Attempt(2, "k-2", "other", 3, plan="another"), attempts.recall(store))
    attempts.remember(store, following)
    attempts.consume(store, "k-2", FailureKind.PREEMPTED)
    counted = attempts.failures_before(store, 3)
    assert {kind: n for kind, n in counted.items() if n} == {"out_of_memory": 1, "preempted": 1}
    assert not any(attempts.failures_before(store, 4).values())
