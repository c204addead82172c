"""What is refused while a DAG file is read: arguments of the operator that no run could be made of.

Templates and outputs of other tasks have no value yet, so what depends on them is left to the task itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk.definitions._internal.types import ArgNotSet
from airflow.sdk.definitions.callback import AsyncCallback

from nemo_airflow.alerts import parse_rules
from nemo_airflow.config import Config, Partial, build
from nemo_airflow.config.changes.overrides import change
from nemo_airflow.config.objects.faults import are_noted, noting
from nemo_airflow.config.objects.leaves import convert_leaves, copy_config, iter_leaves
from nemo_airflow.config.objects.origins import Origin
from nemo_airflow.config.objects.validation import check_complete
from nemo_airflow.config.types.graph import is_deferred, literal_of
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.secret import check_secrets, give_secrets
from nemo_airflow.operators.arguments import is_own_template
from nemo_airflow.operators.preparation import Overrides, allowed_by_author, not_a_config
from nemo_airflow.triggers.alerting import AlertSettings


def check_kind(name: str, value: Any, kind: type, example: str) -> None:
    """Checks that an argument is an object of a kind, or None.

    Args:
        name: The argument's name.
        value: What was given.
        kind: The class of which it has to be an instance.
        example: Such an object, as an author writes it.

    Raises:
        ConfigError: It is another object.
    """
    if not (value is None or isinstance(value, kind) or is_deferred(value) or isinstance(value, ArgNotSet)):
        raise ConfigError(
            f"{name}={value!r} is not a {kind.__name__.lower()}: write {name}={example}, or {name}=None for none"
        )


def check_executor(executor: Any) -> None:
    """Checks that jobs could be made for an executor.

    Raises:
        ConfigError: It is not an executor, or is the config of an executor with a wrong value.
        ExecutorError: A field has a wrong value.
    """
    if isinstance(executor, ArgNotSet) or _has_deferred(executor):
        return
    executor = build(executor) if isinstance(executor, Config) else executor
    if not isinstance(executor, Executor):
        raise ConfigError(f"job_executor is {type(executor).__name__}, not an executor such as LocalExecutor()")
    _ = executor.time_limit
    executor.launch()


def check_given_secrets(executor: Any, secrets: Any, env: Any) -> None:
    """Checks that a task's secrets are given by name, and can be given to jobs of its executor.

    Args:
        executor: The operator's executor.
        secrets: The operator's secrets.
        env: The operator's environment variables.

    Raises:
        ExecutorArgumentError: They are not, or cannot.
    """
    if secrets is None or isinstance(secrets, ArgNotSet) or is_deferred(secrets):
        return
    plain = env if isinstance(env, Mapping) else {}
    if isinstance(executor, Executor):
        give_secrets(executor, secrets, plain)
    else:
        check_secrets("the task", secrets, plain)


def check_defer_after(seconds: Any) -> None:
    """Refuses what is not a number of seconds.

    Raises:
        ConfigError: It is not a number of at least 0, or None.
    """
    if seconds is None or (isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and seconds >= 0):
        return
    raise ConfigError(
        f"defer_after={seconds!r} is not a number of seconds: give one of at least 0, or None for the setting"
    )


def check_max_chain(count: Any) -> None:
    """Refuses what is not a number of attempts.

    Raises:
        ConfigError: It is not a whole number of at least 1.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigError(f"max_chain={count!r} is not a number of attempts: give 1 or more")


def check_alerts(alert_if: Any, callbacks: Any) -> None:
    """Checks that alerts are conditions, and that each callback can be run in the triggerer.

    Raises:
        ConfigError: They are not.
    """
    rules = parse_rules(alert_if)
    for callback in _callbacks_in(callbacks):
        if not isinstance(callback, AsyncCallback) and not (isinstance(callback, Mapping) and "path" in callback):
            raise ConfigError(
                f"on_alert_callback is {type(callback).__name__}: give AsyncCallback(NemoRunNotifier, {{...}}) of "
                "airflow.sdk, which the triggerer can run, or a list of such"
            )
        path, kwargs = _path_and_arguments(callback)
        try:
            json.dumps(kwargs)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"on_alert_callback: the arguments of {path} are not JSON: {error}") from None
    if callbacks and not rules:
        raise ConfigError("on_alert_callback is given without alert_if: say when it is called: alert_if='loss > 10'")


def check_mapped_alerts(alert_if: Any, callbacks: Any) -> None:
    """Checks the alerts of a mapped task, in whose DAG Airflow writes each argument as a text.

    Raises:
        ConfigError: They are wrong, or the text differs each time that the file is read.
    """
    check_alerts(alert_if, callbacks)
    if any(isinstance(callback, AsyncCallback) for callback in _callbacks_in(callbacks)):
        raise ConfigError(
            "on_alert_callback of a mapped task makes a new version of the DAG each time that its file is read: give "
            "AsyncCallback(...).serialize()"
        )


def _callbacks_in(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else [given]


def _path_and_arguments(callback: Any) -> tuple[str, Mapping[str, Any]]:
    if isinstance(callback, Mapping):  # AsyncCallback(...).serialize()
        return str(callback["path"]), callback.get("kwargs") or {}
    return callback.path, callback.kwargs


def alert_settings(alert_if: Any, callbacks: Any) -> AlertSettings | None:
    """Returns the settings of an operator's alerts; None where it has no condition."""
    conditions = [alert_if] if isinstance(alert_if, str) else list(alert_if)
    if not conditions:
        return None
    given = map(_path_and_arguments, _callbacks_in(callbacks))
    return AlertSettings(conditions, [{"path": path, "kwargs": dict(kwargs)} for path, kwargs in given])


def check_config(config: Any, overrides: Any, allow: Sequence[str], *, takes_params: bool) -> None:
    """Checks that a config is one, that the overrides fit it, and that nothing is missing then.

    Args:
        config: The operator's config.
        overrides: The operator's overrides.
        allow: The operator's allow-list.
        takes_params: Whether a run's params may give what is missing.

    Raises:
        ConfigError: Something is wrong; the path is in the error.
    """
    if is_deferred(config) or isinstance(config, ArgNotSet):
        return
    if not isinstance(config, (Config, Partial)):
        raise ConfigError(not_a_config(config))
    known, is_whole = _known_overrides(overrides)
    for each in _one_by_one(known) if are_noted() else [known] if known else []:
        with noting(config):
            config = _changed(config, each, allow)
        if config is None:
            return
    if is_whole and not takes_params:
        check_complete(config)


def with_known_overrides(config: Any, overrides: Any, allow: Sequence[str]) -> Any:
    """Returns an operator's config with the overrides in front of the first that is deferred.

    Raises:
        ConfigError: One of them does not fit.
    """
    known, _ = _known_overrides(overrides)
    changed = _changed(config, known, allow) if known else config
    return config if changed is None else changed


def _one_by_one(overrides: Overrides) -> list[Overrides]:
    if isinstance(overrides, Mapping):
        return [{path: value} for path, value in overrides.items()]
    return [[text] for text in overrides]


def _known_overrides(overrides: Any) -> tuple[Overrides, bool]:
    """Returns the overrides in front of the first that is deferred, and whether these are all."""
    if overrides is None or is_deferred(overrides) or isinstance(overrides, ArgNotSet):
        return (), overrides is None
    if not isinstance(overrides, (Mapping, list, tuple)):
        raise ConfigError(
            f"overrides is {type(overrides).__name__}, not a mapping or a list of texts such as 'model.hidden=64'"
        )
    known: list[Any] = []
    items = list(overrides.items()) if isinstance(overrides, Mapping) else list(overrides)
    for item in items:
        if any(is_deferred(leaf) for _, leaf in iter_leaves(item)):
            break
        known.append(item)
    is_whole = len(known) == len(items)
    return (dict(known) if isinstance(overrides, Mapping) else known), is_whole


def _changed(config: Any, overrides: Overrides, allow: Sequence[str]) -> Any:
    """Returns a config with overrides, or None where they go below what is deferred."""
    without = convert_leaves(config, lambda _path, leaf, _annotation: None if _is_reference(leaf) else leaf)
    origin = Origin("the operator's overrides", tuple(allowed_by_author(without, overrides, allow)))
    try:
        return change(copy_config(config), overrides, origin)
    except ConfigError as error:
        deferred = [path for path, leaf in iter_leaves(config) if is_deferred(leaf)]
        if any(error.path.startswith((f"{path}.", f"{path}[")) or error.path == path for path in deferred):
            return None
        raise


def _is_reference(leaf: Any) -> bool:
    return not isinstance(leaf, str) and is_deferred(leaf) and literal_of(leaf) is leaf


def _has_deferred(value: Any) -> bool:
    found: list[str] = []

    def look(path: str, leaf: Any, annotation: Any) -> Any:
        if is_deferred(leaf) and not is_own_template(annotation):
            found.append(path)
        return leaf

    convert_leaves(value, look)
    return bool(found)
