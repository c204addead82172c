"""Finds the secrets in a job, and makes public forms of jobs, plans and executors.

A secret is a text that Airflow's own masker masks. It is known in the process that read it from a connection or
variable, which is the worker that renders the templates. So the worker masks what it passes on, and marks the secrets
for the runner.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from nemo_airflow.connections import find_secrets, redact
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.job import Job
from nemo_airflow.runner.masking import map_texts


def mark_secrets(job: Job) -> Job:
    """Returns the job with the places of secrets in its environment and its plan."""
    found = [*_places(("env",), dict(job.env)), *_places(("plan",), dict(job.plan))]
    return dataclasses.replace(job, secrets=tuple(found))


def masked_job(job: Job) -> Job:
    """Returns the job without its secrets, for recording."""
    env = {name: redact(value) for name, value in job.env.items()}
    return dataclasses.replace(job, env=env, plan=masked_plan(job.plan), secrets=())


def masked_plan(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the plan without secrets, for recording. It is a valid plan, but not the one that runs."""
    masked: Mapping[str, Any] = map_texts(plan, redact, keys=False)
    return masked


def masked_executor(executor: Executor) -> dict[str, Any]:
    """Returns the JSON form of an executor for followers of its jobs. Fields for connecting are unchanged."""
    data = executor.to_json()
    masked = {**map_texts(data, redact, keys=False), "kind": executor.kind}
    try:
        if executor_from_json(masked).connection_key() == executor.connection_key():
            return masked
    except NemoAirflowError:  # the field's check does not accept the mask
        pass
    return {**data, "env": masked["env"]}


def _places(path: tuple[Any, ...], value: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, str):
        yield from ((*path, start, end) for start, end in find_secrets(value))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _places((*path, index), item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _places((*path, key), item)
