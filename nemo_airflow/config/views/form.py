"""Turns a config into form fields, one for each value that a person may change."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import decimal
import enum
import json
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl
from pydantic_core import to_jsonable_python

from nemo_airflow.config.objects.buildable import known_default, unchecked
from nemo_airflow.config.objects.leaves import annotation_below
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.annotations import strip_qualifiers
from nemo_airflow.config.types.docstrings import parameter_help
from nemo_airflow.config.types.graph import (
    children,
    is_dataclass_instance,
    is_deferred,
    join,
    literal_of,
    templates_rendered,
)
from nemo_airflow.config.types.parameters import NO_DEFAULT, Parameter, parameters_of

_KEPT = (
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
)
_FORMATS = ("date", "date-time", "time")
_SIMPLE = ("boolean", "integer", "number", "string")
_SEVERAL = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_MAX_DEPTH = 50


@dataclasses.dataclass(frozen=True)
class FormField:
    """One field of a form.

    Attributes:
        default: The initial value, as plain JSON types; None also when ``required``.
        schema: JSON schema of what may be entered, restricted to what Airflow's trigger form shows.
        title: The name of the parameter, or the key in a dict or list.
        section: Dotted path of the config that has the parameter; empty for the root.
        description: The description in the target's docstring, or empty.
        required: Whether there is no initial value.
    """

    default: Any
    schema: Mapping[str, Any]
    title: str
    section: str = ""
    description: str = ""
    required: bool = False


def form_fields(config: Any, prefix: str = "") -> dict[str, FormField]:
    """Returns the fields of a config by dotted name, including parameters left at their defaults.

    Left out are values that come from elsewhere (templates, outputs of other tasks), those that a
    form cannot show (functions, dicts with other than plain values ...), and what is shared, at
    all places but the first.

    Args:
        config: A config.
        prefix: Put before each name, with a dot.
    """
    form = _Form()
    form.add(config, "", "", Any, "", 0)
    return {f"{prefix}.{name}" if prefix else name: field for name, field in form.fields.items()}


class _Form:
    def __init__(self) -> None:
        self.fields: dict[str, FormField] = {}
        self._seen: set[int] = set()
        self._kept: list[Any] = []  # alive, so that no id is used twice

    def add(self, value: Any, section: str, key: Any, annotation: Any, description: str, depth: int) -> None:
        """Adds the fields of a value, or its one field, under a key of a section."""
        path = join(section, key) if depth else ""
        if (held := literal_of(value)) is not value:
            with templates_rendered():
                self.add(held, section, key, annotation, description, depth)
            return
        if is_deferred(value) or depth > _MAX_DEPTH:
            return
        if is_dataclass_instance(value):
            names = [field.name for field in dataclasses.fields(value) if field.init]
            if id(value) not in self._seen:
                self._mark(value)
                fields = {name: getattr(value, name) for name in names}
                self._add_config(unchecked(type(value), fields), path, depth)
        elif isinstance(value, fdl.Buildable):
            self._add_config(value, path, depth)
        elif isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
            for name, item in value.items():
                self.add(item, path, name, annotation_below(value, name, annotation), "", depth + 1)
        elif isinstance(value, (list, tuple)) and not all(_is_plain(item) for item in value):
            for index, item in enumerate(value):
                self.add(item, path, index, annotation_below(value, index, annotation), "", depth + 1)
        elif path:
            self._add_leaf(value, section, key, annotation, description)

    def _add_config(self, config: Any, path: str, depth: int) -> None:
        if id(config) in self._seen:
            return
        self._mark(config)
        texts = parameter_help(config.__fn_or_cls__)
        parameters = parameters_of(config.__fn_or_cls__)
        named: dict[str, Any] = {}
        for name in parameters.names:
            parameter = parameters.by_name[name]
            value = _value(config, parameter)
            # A default that is unknown and not required, such as that of an arbitrary factory, has no field.
            if value is not NO_DEFAULT or parameter.is_required:
                named[name] = value
        named.update((key, value) for key, value in config.__arguments__.items() if isinstance(key, str))
        for name, value in named.items():
            annotation = annotation_below(config, name, Any)
            self.add(value, path, name, annotation, texts.get(name, ""), depth + 1)

    def _add_leaf(self, value: Any, section: str, key: Any, annotation: Any, description: str) -> None:
        schema = _schema(annotation, value)
        if schema is None:
            return
        required = value is NO_DEFAULT
        try:
            default = None if required else _json(value)
            json.dumps(default, allow_nan=False)
        except ValueError:  # infinite, or of a type without a JSON form
            return
        self.fields[join(section, key)] = FormField(default, schema, str(key), section, description, required)

    def _mark(self, value: Any) -> None:
        self._seen.add(id(value))
        self._kept.append(value)


def _value(config: Any, parameter: Parameter) -> Any:
    if parameter.name in config.__arguments__:
        return config.__arguments__[parameter.name]
    return known_default(parameter)


def _is_plain(value: Any) -> bool:
    return value is None or (isinstance(value, (bool, int, float, str, enum.Enum)) and not is_deferred(value))


def _json(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (set, frozenset)):  # in an order that is the same in every process
        return [_json(item) for _, item in children(value) or ()]
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    return to_jsonable_python(value)


def _schema(annotation: Any, value: Any) -> dict[str, Any] | None:
    if annotation is Any and isinstance(value, (bool, int, float, str)):
        annotation = type(value)
    schema = _annotated(annotation)
    if schema is None:
        return None
    if schema.get("format") == "date-time" and isinstance(value, datetime.datetime) and value.tzinfo is None:
        del schema["format"]  # JSON schema's date-time requires a time zone
    if _has_several_lines(value):
        if schema.get("type") == "array":
            return None  # the form has a line for each item
        if "enum" not in schema:
            schema["format"] = "multiline"  # another input drops the line breaks
    return _nullable(schema) if value is None else schema


def _has_several_lines(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_has_several_lines(item) for item in value)
    return isinstance(value, str) and ("\n" in value or "\r" in value)


def _annotated(annotation: Any) -> dict[str, Any] | None:
    """Returns the schema of an annotation, or None where a form has no field for it."""
    enums = [member for member in _members(annotation) if isinstance(member, type) and issubclass(member, enum.Enum)]
    if enums:
        others = [member for member in _members(annotation) if member not in (enums[0], type(None))]
        schema = _of_enum(enums[0])
        return None if others else _nullable(schema) if type(None) in _members(annotation) else schema
    if (several := _of_several(annotation)) is not None:
        return several
    if decimal.Decimal in _members(annotation):
        annotation = typing.Optional[str] if type(None) in _members(annotation) else str  # noqa: UP045 - made here
    found = checks.json_schema(annotation)
    return None if found is None else _reduced(found)


def _of_enum(kind: type[enum.Enum]) -> dict[str, Any]:
    shown = {name: f"{name} ({member.value})" for name, member in kind.__members__.items()}
    return {"type": "string", "enum": list(kind.__members__), "values_display": shown}


def _of_several(annotation: Any) -> dict[str, Any] | None:
    """Returns the schema of a list of texts from a fixed set, which the form shows as a multiple choice."""
    members = [member for member in _members(annotation) if member is not type(None)]
    kind = strip_qualifiers(members[0]) if len(members) == 1 else None
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if not isinstance(origin, type) or not issubclass(origin, _SEVERAL) or not args:
        return None
    if issubclass(origin, tuple) and args[1:] != (...,):
        return None
    item = strip_qualifiers(args[0])
    if isinstance(item, type) and issubclass(item, enum.Enum):
        choice = _of_enum(item)
    elif typing.get_origin(item) is typing.Literal and all(type(text) is str for text in typing.get_args(item)):
        choice = {"enum": list(typing.get_args(item))}
    else:
        return None
    shown = {"values_display": choice["values_display"]} if "values_display" in choice else {}
    items = {"type": "string", "enum": choice["enum"]}
    schema = {"type": "array", "items": items, "examples": choice["enum"], **shown}
    return _nullable(schema) if len(_members(annotation)) > 1 else schema


def _members(annotation: Any) -> tuple[Any, ...]:
    annotation = strip_qualifiers(annotation)
    return typing.get_args(annotation) if typing.get_origin(annotation) in checks.UNIONS else (annotation,)


def _reduced(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    if "anyOf" in schema:
        members = [member for member in schema["anyOf"] if member.get("type") != "null"]
        has_null = len(members) < len(schema["anyOf"])
        if {member.get("type") for member in members} == {"integer", "number"}:
            members = [{"type": "number"}]
        inner = _reduced(members[0]) if len(members) == 1 else None
        return _nullable(inner) if inner is not None and has_null else inner
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return {**({"type": schema["type"]} if "type" in schema else {}), "enum": list(values)}
    kind = schema.get("type")
    if kind == "array":
        return _array(schema)
    if kind not in _SIMPLE or schema.get("format") == "binary":
        return None
    kept = {key: schema[key] for key in _KEPT if key in schema and (key != "format" or schema[key] in _FORMATS)}
    return {"type": kind, **kept}


def _array(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    kinds = [_reduced(item) for item in [schema.get("items"), *schema.get("prefixItems", ())] if isinstance(item, dict)]
    if not kinds or any(kind is None or kind.get("type") not in _SIMPLE for kind in kinds):
        return None
    items = kinds[0] if all(kind == kinds[0] for kind in kinds) else {}
    limits = {key: schema[key] for key in ("minItems", "maxItems", "uniqueItems") if key in schema}
    return {"type": "array", "items": items, **limits}


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    kind = schema.get("type", [])
    kinds = kind if isinstance(kind, list) else [kind]
    if "null" in kinds:
        return schema
    changed = {**schema, "type": ["null", *kinds]} if kinds else dict(schema)
    if "enum" in schema and None not in schema["enum"]:
        changed["enum"] = [None, *schema["enum"]]
    return changed
