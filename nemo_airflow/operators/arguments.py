"""Configs, executors and the like as operator arguments: rendered, wired upstream, serialized.

Airflow looks into lists and dicts for templates and upstream tasks, not into other objects. It
does ask any ``ResolveMixin``; that class is private to Airflow, so it is used in this module only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow.sdk import XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions._internal.types import ArgNotSet
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow.config.graph import is_deferred
from nemo_airflow.config.leaves import iter_leaves, map_leaves
from nemo_airflow.exceptions import NemoAirflowError


class Argument(ResolveMixin):
    """An operator's argument whose leaves may hold templates and upstream results.

    Args:
        value: A config, a frozen dataclass such as an executor, or anything that Airflow itself
            looks into.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def iter_references(self) -> Iterable[tuple[Any, str]]:
        """Yields the upstream tasks that the leaves refer to, with their XCom keys."""
        for _, leaf in _leaves(self.value):
            yield from XComArg.iter_xcom_references(leaf)

    def resolve(self, context: Context) -> Any:
        """Returns the value with its templates rendered and its references replaced by results."""
        task = context["task"]
        env = task.get_template_env(context.get("dag"))

        def render(path: str, leaf: Any) -> Any:
            # As the operator renders one of its own fields; other leaves hold nothing to render.
            return task.render_template(leaf, context, env) if isinstance(leaf, (str, ResolveMixin)) else leaf

        try:
            return _map(self.value, render)
        except NemoAirflowError as error:  # what was rendered does not fit: trying again would not mend it
            raise AirflowFailException(str(error)) from None

    def serialize(self) -> Any:
        """Returns plain JSON types, the same at each parse; what the rendered-templates page shows."""
        return plain(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


def by_name(value: Any, find: Callable[[str], Any]) -> Any:
    """Returns what a plain text names; anything else, and a template that is yet to be rendered, as it is.

    Args:
        value: An operator's argument.
        find: Returns what is registered under a name.
    """
    return find(value) if isinstance(value, str) and not is_deferred(value) else value


def wrap(value: Any) -> Any:
    """Returns the value as an :class:`Argument`, unless it is none that needs it."""
    if value is None or isinstance(value, (str, ResolveMixin, ArgNotSet)):
        return value
    return Argument(value)


def unwrap(value: Any) -> Any:
    """Returns what :func:`wrap` wrapped; for a task whose templates were not rendered."""
    return value.value if isinstance(value, Argument) else value


def plain(value: Any) -> Any:
    """Returns the value as plain JSON types for people: the same at each parse, without addresses."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"_target_": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)


def _leaves(value: Any) -> Iterable[tuple[str, Any]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for path, leaf in _leaves(getattr(value, field.name)):
                yield f"{field.name}.{path}".rstrip("."), leaf
    else:
        yield from iter_leaves(value)


def _map(value: Any, fn: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _map(getattr(value, f.name), fn) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return map_leaves(value, fn)
