"""The arguments of calls that overrides write, by the parameters of what they call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Dict

from nemo_airflow.language import hints
from nemo_airflow.language.configs import VARIADIC, Key, check_name, keys_of, names_of, parameters_of, star_of
from nemo_airflow.language.errors import UnknownParameterError
from nemo_airflow.language.overrides.fits import widened
from nemo_airflow.language.plan.grammar import join
from nemo_airflow.language.texts import short_name


def bind(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], path: str = "") -> Dict[Key, Any]:
    """Returns the arguments of a call by their keys in a config.

    Raises:
        UnknownParameterError: The target does not take them.
    """
    try:
        found = keys_of(target, tuple(args))
    except TypeError as error:
        raise UnknownParameterError(f"{error}; valid: {', '.join(names_of(target))}", path) from None
    for name, value in kwargs.items():
        try:
            check_name(target, name)
        except TypeError as error:
            raise UnknownParameterError(str(error), join(path, name)) from None
        if name in found:
            raise UnknownParameterError(f"{short_name(target)} is given {name!r} twice, by position and by name", path)
        found[name] = value
    return found


def annotation_of(target: Any, key: Key) -> Any:
    """Returns the annotation of an argument, which its default fits, too; ``Any`` where there is none."""
    parameters = list(parameters_of(target).values())
    if isinstance(key, str):
        found = parameters_of(target).get(key)
        if found is None or found.kind in VARIADIC:
            found = next((each for each in parameters if each.kind is inspect.Parameter.VAR_KEYWORD), None)
    else:
        star = star_of(target)
        found = parameters[key if star is None or key < star else star] if key < len(parameters) or star else None
    if found is None:
        return Any
    annotation = hints.annotation_of(target, found.name)
    return annotation if found.kind in VARIADIC else widened(annotation, found.default)
