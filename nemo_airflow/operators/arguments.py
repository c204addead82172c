"""Configs, executors and the like as operator arguments: rendered, wired upstream, serialized.

Airflow looks into lists and dicts for templates and upstream tasks, not into other objects. It
does ask any ``ResolveMixin``; that class and ``Templater`` are private to Airflow, so they are used
in this module only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jinja2
import jinja2.nativetypes
from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions._internal.templater import Templater
from airflow.sdk.definitions._internal.types import ArgNotSet
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowFailException

from nemo_airflow.artifact_references import read_references
from nemo_airflow.config.objects.leaves import convert_leaves, fit_value, iter_leaves
from nemo_airflow.config.types.graph import is_deferred, is_template, templates_rendered
from nemo_airflow.exceptions import NemoAirflowError, ParameterTypeError
from nemo_airflow.executors.launchers import OWN_TEMPLATE

_SHOWN = 80
"""How much of a text an error shows."""


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
        for _, leaf in iter_leaves(self.value):
            yield from XComArg.iter_xcom_references(leaf)

    def resolve(self, context: Context) -> Any:
        """Returns the value with its templates rendered and its references replaced by results.

        Each is converted to the annotation of its place. A text without a template stays as it is, and so does
        what came out of rendering: that may look like a template.

        Raises:
            AirflowFailException: A template cannot be rendered, or what it gives does not fit.
        """
        task = context["task"]
        env = task.get_template_env(context.get("dag"))

        def render(path: str, leaf: Any, annotation: Any) -> Any:
            if not (is_template(leaf) or isinstance(leaf, ResolveMixin)) or is_own_template(annotation):
                return leaf
            try:
                rendered = read_references(BaseOperator.render_template(task, leaf, context, env))
                return fit_value(annotation, rendered, path)
            except ParameterTypeError:
                if not isinstance(leaf, str) or not isinstance(env, jinja2.nativetypes.NativeEnvironment):
                    raise
            # A native environment reads "1.10" as a number: where that does not fit, the text itself may.
            return fit_value(annotation, render_as_text(leaf, context), path)

        def render_placed(path: str, leaf: Any, annotation: Any) -> Any:
            try:
                return render(path, leaf, annotation)
            except jinja2.TemplateError as error:
                message = template_error(leaf, error)
                raise AirflowFailException(f"{path}: {message}" if path else message) from None

        try:
            with templates_rendered():
                return convert_leaves(self.value, render_placed)
        except NemoAirflowError as error:  # what was rendered does not fit: trying again would not mend it
            raise AirflowFailException(str(error)) from None

    def serialize(self) -> Any:
        """Returns plain JSON types, the same at each parse; what the rendered-templates page shows."""
        return plain(self.value)

    def __repr__(self) -> str:
        return repr(self.value)


class _TextTemplater(Templater):
    """Renders to texts, also in a DAG that renders to native objects."""

    template_fields: Sequence[str] = ()
    template_ext: Sequence[str] = ()

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        if isinstance(content, str) and not is_template(content):
            return content
        try:
            return super().render_template(content, context, jinja_env, seen_oids)
        except jinja2.TemplateError as error:
            raise AirflowFailException(template_error(content, error)) from None


def render_as_text(value: Any, context: Context, seen: set[int] | None = None) -> Any:
    """Returns a value with each template in it rendered to a text.

    Args:
        value: A text, or a container of texts.
        context: The task's context.
        seen: The ids of objects that are not to be rendered.

    Raises:
        AirflowFailException: A template cannot be rendered.
    """
    env = context["dag"].get_template_env(force_sandboxed=True)
    return _TextTemplater().render_template(value, context, env, seen)


def is_own_template(annotation: Any) -> bool:
    """Returns whether texts of an annotation are templates that Airflow has to leave as they are."""
    return OWN_TEMPLATE in getattr(annotation, "__metadata__", ())


def template_error(text: Any, error: jinja2.TemplateError) -> str:
    """Returns in one line why a text cannot be rendered, and how to write a text that is not a template."""
    shown = repr(text) if len(repr(text)) <= _SHOWN else f"{repr(text)[:_SHOWN]}..."
    return (
        f"the template {shown} cannot be rendered ({error}): write literal(...) of airflow.sdk around a text "
        "that is not a template"
    )


def by_name(value: Any, find: Callable[[str], Any]) -> Any:
    """Returns what a plain text names; anything else, and a template that was not rendered, as it is.

    Args:
        value: An operator's argument.
        find: Returns what is registered under a name.
    """
    return find(value) if isinstance(value, str) and not is_deferred(value) else value


def wrap(value: Any) -> Any:
    """Returns the value as an :class:`Argument`, unless it needs no wrapping."""
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
