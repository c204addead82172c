"""Checks a value strictly against an annotation, and reports where and why it does not fit."""

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Iterable
from typing import Any

import fiddle as fdl
import pydantic
import typing_extensions

from nemo_airflow.config.types.adapters import adapter
from nemo_airflow.config.types.annotations import UNIONS, class_of, find_element, strip_annotation, typed_dict_fields
from nemo_airflow.config.types.representation import annotation_text, value_text
from nemo_airflow.config.types.results import takes
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.overrides.fits import Misfit as Misfit
from nemo_airflow.language.overrides.fits import MisfitError as MisfitError


def check(annotation: Any, value: Any) -> Misfit | None:
    """Checks a value strictly: an int is accepted as a float, but a bool is not an int and a text is not a number.

    Returns:
        Why it does not fit, or None.
    """
    if type(value) is annotation and annotation in _EXACT:
        return None
    if _is_for_its_class(annotation, value):
        return None
    found = adapter(annotation)
    if found is None:
        return None
    try:
        found.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        return _misfit(annotation, value, error)
    except Exception:  # noqa: BLE001 - validators of other people's types may raise anything: then we cannot judge
        return None
    return None


def fitting_types(annotation: Any) -> frozenset[type]:
    """Returns plain types whose values all fit an annotation (for ``str``: all valid texts); others may fit too.

    ``int`` is not among those for ``float``: some ints are too large.
    """
    if annotation is Any or annotation is object:
        return _PLAIN
    if annotation is None or annotation is type(None):
        return frozenset((type(None),))
    if typing.get_origin(annotation) in UNIONS:
        return frozenset(kind for arg in typing.get_args(annotation) for kind in fitting_types(arg))
    return frozenset(kind for kind in _EXACT if kind is annotation)  # which may be what cannot be hashed


def _is_for_its_class(annotation: Any, value: Any) -> bool:
    """Returns whether a value is a config of exactly the annotated class, or a list of such configs.

    Those fit by :func:`nemo_airflow.config.types.results.result_fits`. Asking it through pydantic takes
    1.5 microseconds each, and most configs of a large one are of this kind.
    """
    if type(value) is list:
        args = typing.get_args(annotation) if value and typing.get_origin(annotation) is list else ()
        if not args:
            return False
        kind, wanted = type(value[0]), args[0]
        return issubclass(kind, fdl.Config) and all(
            type(config) is kind and config.__fn_or_cls__ is wanted for config in value
        )
    if type(value) in _PLAIN or not isinstance(value, fdl.Config):
        return False
    target = value.__fn_or_cls__
    members = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)
    return any(target is member for member in members)


def broken_constraint(value: Any, error: pydantic.ValidationError) -> Misfit | None:
    """Returns the one constraint that a value of the right type breaks, or None for any other error."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    # Of several errors, a broken constraint is more informative than a wrong type.
    reasons = {
        format_error(detail): detail
        for detail in details
        if detail["type"] not in ("config", "none_required") and not _is_below(detail, value)
    }
    if len(reasons) != 1 or any(detail["type"] not in _CONSTRAINTS for detail in reasons.values()):
        return None
    ((message, detail),) = reasons.items()
    keys = []
    for part in detail["loc"]:  # some are names of schemas
        if isinstance(value, dict) and part in value:
            keys.append(part)
            value = value[part]
    return Misfit(tuple(keys), f"{message}, got {value_text(value)}")


def format_error(detail: Any) -> str:
    """Returns the message of one pydantic error, in one line and without the kind in front."""
    message = " ".join(detail["msg"].split())
    if detail["type"] in ("value_error", "assertion_error"):
        return message.partition(", ")[2] or message
    return f"{message[:1].lower()}{message[1:]}"


def _misfit(annotation: Any, value: Any, error: pydantic.ValidationError) -> Misfit:
    holder = strip_annotation(annotation, value)
    below = _misfit_below(annotation, value)
    if below is not None:
        return below
    return broken_constraint(value, error) or Misfit(
        (), f"expected {annotation_text(holder)}, got {value_text(value)}{_remark(holder, value)}"
    )


def _is_below(detail: Any, value: Any) -> bool:
    return isinstance(value, (dict, list, tuple)) and detail["type"] in ("missing", "extra_forbidden")


def _remark(annotation: Any, value: Any) -> str:
    """Returns a remark on a value beyond what was expected and given, or an empty text."""
    args = typing.get_args(annotation)
    is_called = typing.get_origin(annotation) is collections.abc.Callable
    if is_called and (callable(value) or isinstance(value, fdl.Partial)) and not takes(value, args):
        count = len(args[0]) if isinstance(args[0], list) else len(typing.get_args(args[0])) - 1
        return f", which does not take {count} positional argument{'' if count == 1 else 's'}"
    kind = typing.get_origin(annotation) or annotation
    return _keys_remark(annotation, value) if typing_extensions.is_typeddict(kind) and isinstance(value, dict) else ""


def _keys_remark(annotation: Any, value: dict[Any, Any]) -> str:
    """Returns which key of a TypedDict is missing or unknown."""
    fields, others = typed_dict_fields(annotation)
    missing = [name for name, (_, required) in fields.items() if required and name not in value]
    if missing:
        return f", which lacks {', '.join(map(repr, missing))}"
    unknown = next((key for key in value if key not in fields), None) if others is None else None
    return f", with the unknown key {unknown!r}{nearest(str(unknown), fields)}" if unknown is not None else ""


def _misfit_below(annotation: Any, value: Any) -> Misfit | None:
    """Returns the misfit of the first wrong element; pydantic's own paths also contain names of schemas."""
    if isinstance(value, collections.abc.Mapping):
        args = typing.get_args(strip_annotation(annotation, value))
        is_mapping = issubclass(class_of(strip_annotation(annotation, value)), collections.abc.Mapping)
        for key in value if args and is_mapping else ():
            if (misfit := check(args[0], key)) is not None:
                return Misfit((), f"the key {value_text(key)}: {misfit.message}")
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, collections.abc.Set):
        items = ((None, item) for item in value)
    elif isinstance(value, collections.abc.Sequence) and not isinstance(value, (str, bytes, bytearray)):
        items = enumerate(value)
    else:
        return None
    for key, item in items:
        misfit = check(find_element(annotation, 0 if key is None else key, value), item)
        if misfit is not None:
            return Misfit(misfit.keys if key is None else (key, *misfit.keys), misfit.message)
    return None


_EXACT: frozenset[type] = frozenset((bool, int, float, str))
"""Types that are checked without pydantic."""

_PLAIN: frozenset[type] = _EXACT | {type(None), list, dict}
"""Types of the values of JSON."""

_CONSTRAINTS = frozenset(
    {
        "assertion_error",
        "bytes_too_long",
        "bytes_too_short",
        "date_future",
        "date_past",
        "datetime_future",
        "datetime_past",
        "finite_number",
        "greater_than",
        "greater_than_equal",
        "less_than",
        "less_than_equal",
        "multiple_of",
        "string_pattern_mismatch",
        "string_too_long",
        "string_too_short",
        "timezone_aware",
        "timezone_naive",
        "too_long",
        "too_short",
        "value_error",
    }
)
"""Kinds of pydantic errors that are more informative than a wrong type."""
