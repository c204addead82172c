"""From an operator's rendered arguments to a job: overrides, validation, plan, labels, key."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.definitions.context import Context

from nemo_airflow.artifact_references import read_references
from nemo_airflow.config import Config, Partial, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.config.changes.overrides import change
from nemo_airflow.config.objects.leaves import convert_leaves, copy_config, iter_leaves
from nemo_airflow.config.objects.origins import Origin
from nemo_airflow.config.plan.allow import extend_allow as allow_here
from nemo_airflow.config.types.docstrings import description_of
from nemo_airflow.config.types.graph import iter_nodes
from nemo_airflow.config.views.provenance import history
from nemo_airflow.connections import redact
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor
from nemo_airflow.installation import run_labels
from nemo_airflow.job import Job
from nemo_airflow.keys import job_key
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.plan.contents import check, check_allowed
from nemo_airflow.operators.params import check_conf, overrides_from

Overrides = Mapping[str, Any] | Sequence[str]

_MOST_ORIGINS = 5000
"""Values that are set one by one of which is recorded who has set them; of none of a config with more."""


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a task will run, before it is known under which key.

    Attributes:
        plan: The validated config, as a plan.
        allow: Targets that the job may import.
        digest: Names the plan and the executor: another digest is another job.
        labels: Where the job comes from; the same at each try but for ``try_number``.
        identity: What makes the job's key, besides the attempt.
        description: What the job does, for people, as Markdown.
        run_description: The same of the DAG.
        set_by: Who has set which values of the config: see :func:`origins_of`.
    """

    plan: Mapping[str, Any]
    allow: tuple[str, ...]
    digest: str
    labels: Mapping[str, str]
    identity: Mapping[str, object]
    description: str = ""
    run_description: str = ""
    set_by: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def key(self, attempt: int) -> str:
        """Returns the job's key at that attempt."""
        return job_key(self.identity, name=f"{self.labels['dag_id']}-{self.labels['task_id']}", attempt=attempt)

    def job(self, attempt: int, **fields: Any) -> Job:
        """Returns the job at that attempt, with the given fields of :class:`Job`."""
        name = f"{self.labels['dag_id']}.{self.labels['task_id']}"
        return Job(
            key=self.key(attempt), name=name, plan=self.plan, allow=self.allow, labels=self.labels,
            description=self.description, run_description=self.run_description, **fields,
        )  # fmt: skip


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
        raise ConfigError(not_a_config(config))
    allowed = allowed_by_author(config, overrides, allow)
    given: dict[str, Overrides] = {}
    if params_prefix is not None:
        check_conf(context["dag_run"].conf or {}, context["dag"].params)
        given["the run's conf"] = overrides_from(context["params"], params_prefix)
    # Their templates may have the run's conf in them, so they read no files either.
    given["the operator's overrides"] = read_references(overrides)
    if any(given.values()):
        config = copy_config(config)
    for name, changes in given.items():
        origin = Origin(name, tuple(allowed))
        config = change(config, changes, origin)
        made = plans.to_plan(origin.granted.configs, check=False)
        allowed += (*sorted(origin.granted.names), *plans.targets(made))
    plan, allow_in_job = plan_of(config, allowed)
    prepared = prepare_plan(plan, allow_in_job, executor, context, describe(config))
    return dataclasses.replace(prepared, set_by=origins_of(config))


def origins_of(config: Any) -> dict[str, Any]:
    """Returns who has set the values of a config, for its page: what is not in it has its default.

    Returns:
        ``who``, the places that have set values, and ``paths``: for each path that was set, which of these.
    """
    who: dict[str, int] = {}
    paths: dict[str, int] = {}
    for setting in history(config):
        if setting.path not in paths and setting.kind in ("value", "target"):  # the newest is the first
            if len(paths) == _MOST_ORIGINS:
                return {}
            paths[setting.path] = who.setdefault(redact(setting.where), len(who))
    return {"who": list(who), "paths": paths}


def prepare_plan(
    plan: Mapping[str, Any], allow: tuple[str, ...], executor: Executor, context: Context, description: str
) -> Prepared:
    """Names what will run.

    Args:
        plan: The checked config.
        allow: What its job may import.
        executor: Where it runs.
        context: Airflow's context of the task.
        description: What the job does, where the task does not say it.
    """
    where = json.dumps(changed_fields(executor), sort_keys=True)
    digest = hashlib.sha256(f"{plans.digest(plan)}\n{where}".encode()).hexdigest()
    labels = labels_of(context)
    identity = {
        name: labels[name] for name in ("dag_id", "run_id", "task_id", "map_index", "installation", "run_after")
    }
    task_text, dag_text = (
        inspect.cleandoc(getattr(context.get(each), "doc_md", None) or "") for each in ("task", "dag")
    )
    return Prepared(plan, allow, digest, labels, {**identity, "digest": digest}, task_text or description, dag_text)


def describe(config: Any) -> str:
    """Returns what the docstring of the config's function says; that of a script is not the author's."""
    function = config.__fn_or_cls__
    return "" if getattr(function, "__module__", "").partition(".")[0] == "nemo_airflow" else description_of(function)


def plan_of(config: Any, allowed: Sequence[str]) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Returns a config, once it was validated, as a plan, and what its job may import.

    Args:
        config: The config.
        allowed: What its author lets the job import.

    Raises:
        ConfigError: The config is wrong, or has a target that is not allowed.
        ArtifactError: An artifact in it cannot be read.
    """
    config = _with_digests(config)
    validate(config)
    plan = plans.to_plan(config)
    contents = check(plan)
    # An override may choose a member of an enumeration that was not named before.
    names = [*allowed, *sorted(contents.enums)]
    check_allowed(contents.names, names)
    return plan, tuple(dict.fromkeys(names))


def _with_digests(config: Any) -> Any:
    """Returns a config whose artifacts have digests: those that are elsewhere are read now."""
    if all(leaf.digest for _, leaf in iter_leaves(config) if isinstance(leaf, Artifact)):
        return config
    from nemo_airflow.artifacts.keeping import settle

    return convert_leaves(config, lambda _, leaf, __: settle(leaf) if isinstance(leaf, Artifact) else leaf)


def changed_fields(executor: Executor) -> dict[str, Any]:
    """Returns the JSON form of an executor without the fields that have their default.

    So a field that a later release adds makes no other job of a task whose job runs.
    """
    data = executor.to_json()
    return {"kind": data["kind"], **_without_defaults(executor, data)}


def _without_defaults(value: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        here = getattr(value, field.name)
        if field.default is not dataclasses.MISSING:
            default = field.default
        else:
            default = dataclasses.MISSING if field.default_factory is dataclasses.MISSING else field.default_factory()
        if here == default:
            continue
        given = data[field.name]
        if dataclasses.is_dataclass(here) and isinstance(given, Mapping):
            extra = {name: item for name, item in given.items() if name not in vars(here)}
            given = {**extra, **_without_defaults(here, given)}
        changed[field.name] = given
    return changed


def labels_of(context: Context) -> dict[str, str]:
    """Returns the Airflow ids that a job is labelled with."""
    ti, run = context["ti"], context["dag_run"]
    labels = {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": str(-1 if ti.map_index is None else ti.map_index),
        "try_number": str(ti.try_number),
        **run_labels(run.run_after),
        "run_type": str(getattr(run.run_type, "value", run.run_type)),
    }
    if run.logical_date is not None:
        labels["logical_date"] = run.logical_date.isoformat()
    if url := getattr(ti, "log_url", ""):
        labels["url"] = url
    # Who started the DAG run; nobody did if it was due.
    if user := getattr(run, "triggering_user_name", None) or getattr(context.get("task"), "owner", ""):
        labels["user"] = user
    return labels


def allowed_by_author(config: Any, overrides: Overrides, allow: Sequence[str]) -> list[str]:
    """Returns what the author of a task lets the job import: what they wrote, not what an override might bring."""
    return [*plans.targets(plans.to_plan(config, check=False)), *allow_here(allow), *_named_in(overrides)]


def _named_in(overrides: Overrides) -> tuple[str, ...]:
    """Returns the targets of the configs and functions among an author's own overrides."""
    values = list(overrides.values()) if isinstance(overrides, Mapping) else []
    nodes = [value for _, value, _ in iter_nodes(values)]
    found = [value for value in nodes if isinstance(value, (Config, Partial, type)) or inspect.isroutine(value)]
    return plans.targets(plans.to_plan(found, check=False))


def not_a_config(value: Any) -> str:
    """Returns why a value cannot be the config of a task."""
    if callable(value):
        name = getattr(value, "__qualname__", repr(value))
        return f"config={name} is not a config: write Config({name}, ...) with its arguments"
    return f"config is {type(value).__name__}, not a Config, Partial or Script"
