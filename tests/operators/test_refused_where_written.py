"""Arguments of the operator that no run could mend: refused when the DAG is read."""

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG, XComArg, task

from nemo_airflow import Config, NemoRunOperator, Partial
from nemo_airflow.config import validate
from nemo_airflow.exceptions import ConfigError


@pytest.mark.parametrize("kind", [Config, Partial])
@pytest.mark.parametrize("function", [jobs.batches, jobs.async_batches])
def test_generator_function_is_refused(kind, function):
    with pytest.raises(ConfigError, match=r"batches is a generator function: .* iterates over it"):
        NemoRunOperator(task_id="t", config=kind(function))
    with pytest.raises(ConfigError, match="generator function"):
        validate(kind(function))


def test_generator_function_below_the_root_is_taken():
    NemoRunOperator(task_id="t", config=Config(list, Config(jobs.batches)))
    validate(Config(list, Config(jobs.batches)))


def test_coroutine_function_is_taken():
    NemoRunOperator(task_id="t", config=Config(jobs.fetch, value=1))
    validate(Config(jobs.fetch, value=1))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("*.csv", "is not a list of patterns: write"),
        (["/tmp/results/*.csv"], "leads out of the job's working directory"),
        (["{{ ds }}/*", "../*.csv"], "leads out"),
        (["."], "matches no file"),
        (None, "not a list"),
    ],
)
def test_outputs_that_cannot_match_are_refused(outputs, message):
    with pytest.raises(ConfigError, match=message):
        NemoRunOperator(task_id="t", config=Config(jobs.number), outputs=outputs)


def patterns_to_keep():
    return ["*.csv"]


def test_outputs_that_a_task_brings_are_looked_at_when_it_runs():
    with DAG("outputs", schedule=None):
        patterns = task(patterns_to_keep)()
        assert isinstance(patterns, XComArg)
        NemoRunOperator(task_id="one", config=Config(jobs.number), outputs=patterns)
        NemoRunOperator(task_id="two", config=Config(jobs.number), outputs="{{ params.patterns }}")
        NemoRunOperator(task_id="three", config=Config(jobs.number), outputs=["/data/{{ ds }}/*"])
