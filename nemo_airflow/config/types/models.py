"""Fields of pydantic models and attrs classes: what the signatures of their constructors leave out."""

from __future__ import annotations

import dataclasses
import functools
import sys
import typing
from collections.abc import Mapping
from typing import Any

import pydantic
from pydantic_core import PydanticUndefined

from nemo_airflow.config.types.annotations import CONVERTING, noted


@dataclasses.dataclass(frozen=True)
class ModelField:
    """One field.

    Attributes:
        annotation: With its constraints; None where the annotation in the class is complete.
        factory: What makes its default, or None.
        description: As given to ``Field``, or empty.
    """

    annotation: Any = None
    factory: Any = None
    description: str = ""


def model_fields(target: Any) -> Mapping[str, ModelField]:
    """Returns the fields of a pydantic model or an attrs class by parameter; none for any other target."""
    if not isinstance(target, type):
        return {}
    if issubclass(target, pydantic.BaseModel):
        return _pydantics(target.model_fields)
    if (fields := vars(target).get("__pydantic_fields__")) is not None:
        return _pydantics(fields)
    attrs = sys.modules.get("attr")  # without attrs there is no attrs class
    return _attrs(attrs, target) if attrs is not None and attrs.has(target) else {}


def other_names(target: Any) -> Mapping[str, str]:
    """Returns the field names that a pydantic model also accepts beside the aliases in its constructor."""
    if (names := getattr(target, "__nemo_names__", None)) is not None:  # a class that was read from its source
        return {name: taken for name, taken in names.items() if name != taken}
    settings = getattr(target, "model_config", None) or {}
    if not isinstance(target, type) or not issubclass(target, pydantic.BaseModel):
        return {}
    if not (settings.get("populate_by_name") or settings.get("validate_by_name")):
        return {}
    aliases = {name: field.validation_alias or field.alias for name, field in target.model_fields.items()}
    return {name: alias for name, alias in aliases.items() if isinstance(alias, str) and alias != name}


def _pydantics(fields: Mapping[str, Any]) -> dict[str, ModelField]:
    found: dict[str, ModelField] = {}
    for name, field in fields.items():
        annotation = noted(field.annotation, *field.metadata, CONVERTING)
        named = field.validation_alias if isinstance(field.validation_alias, str) else None
        factory = None if field.default_factory_takes_validated_data else field.default_factory
        described = ModelField(annotation, factory, field.description or "")
        found[name] = described
        if named is not None:
            found[named] = described
    return found


def _attrs(attrs: Any, target: Any) -> dict[str, ModelField]:
    found: dict[str, ModelField] = {}
    for field in attrs.fields(target):
        is_factory = isinstance(field.default, attrs.Factory)
        factory = field.default.factory if is_factory and not field.default.takes_self else None
        found[field.alias] = ModelField(None, factory, str((field.metadata or {}).get("description", "")))
    return found


def is_import_string(annotation: Any) -> bool:
    """Returns whether pydantic imports the object that a text names when it reads it as this annotation."""
    notes = annotation.__metadata__ if typing.get_origin(annotation) is typing.Annotated else (annotation,)
    return any(note is pydantic.ImportString or isinstance(note, pydantic.ImportString) for note in notes)


@functools.lru_cache(maxsize=1024)
def imports_texts(kind: Any) -> bool:
    """Returns whether making a model from plain values may import objects that their texts name."""
    stack, seen = [kind], set()
    while stack:
        annotation = stack.pop()
        if is_import_string(annotation):
            return True
        stack += typing.get_args(annotation)
        if isinstance(annotation, type) and annotation not in seen:
            seen.add(annotation)
            stack += [field.annotation for field in model_fields(annotation).values()]
    return False


def is_undefined(default: Any) -> bool:
    """Returns whether a default only marks that a factory makes it."""
    attrs = sys.modules.get("attr")
    return default is PydanticUndefined or (attrs is not None and default is attrs.NOTHING)
