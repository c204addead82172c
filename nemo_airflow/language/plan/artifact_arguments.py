"""Gives a function the artifact itself, instead of its path, where its annotation says so."""

from __future__ import annotations

import inspect
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Dict, Tuple

from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.hints import annotation_of, bare, element_of, is_union


def restore(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], given: Mapping[str, Artifact]
) -> Tuple[Sequence[Any], Dict[str, Any]]:
    """Returns the arguments of a call, with artifacts in the place of their paths where those are annotated.

    Args:
        target: What is called.
        args: The positional arguments.
        kwargs: The named ones.
        given: The artifacts by their paths.
    """
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return args, dict(kwargs)
    star = next((each.name for each in parameters if each.kind is each.VAR_POSITIONAL), "")
    others = next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), "")
    names = [each.name for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    known = {each.name for each in parameters}
    positions = [names[position] if position < len(names) else star for position in range(len(args))]
    return (
        [_fit(annotation_of(target, name), value, given) for name, value in zip(positions, args)],
        {
            name: _fit(annotation_of(target, name if name in known else others), value, given)
            for name, value in kwargs.items()
        },
    )


def _fit(annotation: Any, value: Any, given: Mapping[str, Artifact]) -> Any:
    if not _has_artifact(annotation):
        return value
    if isinstance(value, pathlib.PurePath):
        takes_path = any(_is_path(member) for member in _members(annotation))
        return value if takes_path else given.get(str(value), value)
    if isinstance(value, dict):
        return {key: _fit(element_of(annotation, key), item, given) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)) and not hasattr(value, "_fields"):
        return type(value)([_fit(element_of(annotation, key), item, given) for key, item in enumerate(value)])
    return value


def _members(annotation: Any) -> Sequence[Any]:
    annotation = bare(annotation)
    origin = typing.get_origin(annotation)
    return typing.get_args(annotation) if is_union(origin) else (annotation,)


def _has_artifact(annotation: Any) -> bool:
    annotation = bare(annotation)
    return annotation is Artifact or any(_has_artifact(arg) for arg in typing.get_args(annotation))


def _is_path(annotation: Any) -> bool:
    annotation = bare(annotation)
    return isinstance(annotation, type) and issubclass(annotation, pathlib.PurePath)
