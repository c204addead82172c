"""From an operator's rendered arguments to a job: overrides, validation, plan, labels, key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.definitions.context import Context

from nemo_airflow.config import Config, Partial, apply_overrides, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor
from nemo_airflow.job import Job
from nemo_airflow.keys import job_key
from nemo_airflow.operators.params import overrides_from

Overrides = Mapping[str, Any] | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a task will run, before it is known under which key.

    Attributes:
        plan: The validated config, as a plan.
        allow: Targets that the job may import.
        digest: Names the plan and the executor: another digest is another job.
        labels: Where the job comes from; the same at each try but for ``try_number``.
        identity: What makes the job's key, besides the attempt.
    """

    plan: Mapping[str, Any]
    allow: tuple[str, ...]
    digest: str
    labels: Mapping[str, str]
    identity: Mapping[str, object]

    def key(self, attempt: int) -> str:
        """Returns the job's key at that attempt."""
        return job_key(self.identity, name=f"{self.labels['dag_id']}-{self.labels['task_id']}", attempt=attempt)

    def job(self, attempt: int, **fields: Any) -> Job:
        """Returns the job at that attempt, with the given fields of :class:`Job`."""
        name = f"{self.labels['dag_id']}.{self.labels['task_id']}"
        return Job(key=self.key(attempt), name=name, plan=self.plan, allow=self.allow, labels=self.labels, **fields)


def prepare(
    config: Any,
    executor: Executor,
    context: Context,
    *,
    overrides: Overrides = (),
    params_prefix: str | None = None,
    allow: Sequence[str] = (),
) -> Prepared:
    """Applies the overrides, validates the config and names what will run.

    Raises:
        ConfigError: The config, an override or a value of the trigger form is wrong.
    """
    if not isinstance(config, (Config, Partial)):
        raise ConfigError(_not_a_config(config))
    # What the author wrote may be imported in the job, and not what an override might bring.
    allowed = [*plans.targets(plans.to_plan(config, check=False)), *allow]
    if params_prefix is not None:
        config = apply_overrides(config, overrides_from(context["params"], params_prefix))
    if overrides:
        config = apply_overrides(config, overrides)
    validate(config)
    plan = plans.to_plan(config)
    allowed += _enums(plan)  # an override may choose a member of an enumeration that was not named before
    where = json.dumps(executor.to_json(), sort_keys=True)
    digest = hashlib.sha256(f"{plans.digest(plan)}\n{where}".encode()).hexdigest()
    labels = labels_of(context)
    identity = {name: labels[name] for name in ("dag_id", "run_id", "task_id", "map_index", "run_started")}
    return Prepared(plan, tuple(dict.fromkeys(allowed)), digest, labels, {**identity, "digest": digest})


def labels_of(context: Context) -> dict[str, str]:
    """Returns the Airflow ids that a job is labelled with."""
    ti, run = context["ti"], context["dag_run"]
    labels = {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": str(-1 if ti.map_index is None else ti.map_index),
        "try_number": str(ti.try_number),
        # Tells two installations apart that share a back-end and have equal ids.
        "run_started": str(run.start_date),
        "run_type": str(getattr(run.run_type, "value", run.run_type)),
    }
    if run.logical_date is not None:
        labels["logical_date"] = run.logical_date.isoformat()
    if url := getattr(ti, "log_url", ""):
        labels["url"] = url
    return labels


def _enums(plan: Any) -> set[str]:
    """Returns the classes of the enumeration members in a plan."""
    if isinstance(plan, Mapping):
        member = plan.get("_enum_")
        own = {str(member).rpartition(".")[0]} if member else set()
        return own.union(*(_enums(value) for value in plan.values()))
    if isinstance(plan, list):
        return set().union(*(_enums(value) for value in plan))
    return set()


def _not_a_config(value: Any) -> str:
    if callable(value):
        name = getattr(value, "__qualname__", repr(value))
        return f"config={name} is not a config: write Config({name}, ...) with its arguments"
    return f"config is {type(value).__name__}, not a Config, Partial or Script"
