"""Whether a value fits an annotation as it is.

An annotation of a kind that is not known here (an array, a protocol, a type of pydantic) lets any value through.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, List, Tuple

from nemo_airflow.language.hints import bare, class_of, element_of, hints_of, is_typed_dict, is_union
from nemo_airflow.language.texts import annotation_text, value_text

Keys = Tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why a value does not fit.

    Attributes:
        keys: Where in the value; empty for the value itself.
        message: For example ``expected int, got 'x'``.
    """

    keys: Keys
    message: str


class MisfitError(ValueError):
    """A value that cannot be converted to its annotation.

    Args:
        misfit: Where and why.
    """

    def __init__(self, misfit: Misfit) -> None:
        self.misfit = misfit
        super().__init__(misfit.message)


def never(*given: Any) -> bool:
    """Returns False."""
    return False


def always(*given: Any) -> bool:
    """Returns True."""
    return True


class Fit:
    """Tells whether values fit annotations.

    Args:
        stands_in: Whether a value stands for one of any type: a config, an artifact, a template.
        result_fits: Whether what stands in for a value yields one that fits an annotation.
    """

    def __init__(
        self,
        stands_in: Callable[[Any], bool] = never,
        result_fits: Callable[[Any, Any], bool] = always,
    ) -> None:
        self._stands_in = stands_in
        self._result_fits = result_fits

    def fits(self, annotation: Any, value: Any) -> bool:
        """Returns whether a value fits an annotation as it is; a bool is no number, but a number is a float."""
        if is_open(annotation):
            return True
        if self._stands_in(value):
            return self._result_fits(value, annotation)
        annotation = bare(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if is_union(origin):
            return any(self.fits(arg, value) for arg in args)
        if origin is typing.Literal:
            return any(type(value) is type(arg) and value == arg for arg in args)
        if annotation is None or annotation is type(None):
            return value is None
        kind: Any = class_of(annotation)
        if kind is collections.abc.Callable:
            return callable(value)
        if kind is type:
            return isinstance(value, type)
        if is_typed_dict(kind):
            return isinstance(value, dict) and self.fit_fields(kind, value)
        if kind is float:
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, kind) or (isinstance(value, (str, bytes)) and kind not in (str, bytes, type(value))):
            return _is_text_container(kind, args, value)
        if kind is tuple and isinstance(value, tuple) and has_other_length(args, value):
            return False
        return not args or all(self.fits(element_of(annotation, key), item) for key, item in _items(value))

    def fit_fields(self, kind: Any, value: Mapping[Any, Any]) -> bool:
        """Returns whether a dict has the keys that a ``TypedDict`` requires, and values that fit there."""
        required = getattr(kind, "__required_keys__", ())
        return set(required) <= set(value) and all(
            self.fits(hints_of(kind).get(key, Any), item) for key, item in value.items()
        )


def widened(annotation: Any, default: Any) -> Any:
    """Returns an annotation that the parameter's own default fits, as in ``x: int = None``."""
    if default is inspect.Parameter.empty or is_open(annotation) or Fit().fits(annotation, default):
        return annotation
    return typing.Union[annotation, type(default)]


def is_open(annotation: Any) -> bool:
    """Returns whether any value fits an annotation, as far as can be known here."""
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, str):
        return True
    if any(type(note).__name__ in _VALIDATORS for note in getattr(annotation, "__metadata__", ())):
        return True
    annotation = bare(annotation)
    if annotation in (Any, object) or isinstance(annotation, (str, typing.TypeVar)):
        return True
    origin = typing.get_origin(annotation)
    if annotation is None or is_union(origin) or origin is typing.Literal:
        return False
    kind = origin or annotation
    if not isinstance(kind, type):
        return True
    return getattr(kind, "_is_protocol", False) or hasattr(kind, "__get_pydantic_core_schema__")


_VALIDATORS = ("BeforeValidator", "PlainValidator", "WrapValidator")
"""Notes of annotations that decide themselves what fits."""


def members_of(annotation: Any) -> Sequence[Any]:
    """Returns the members of a union and of those in it; of any other annotation itself, without its metadata."""
    annotation = bare(annotation)
    if not is_union(typing.get_origin(annotation)):
        return (annotation,)
    return [inner for arg in typing.get_args(annotation) for inner in members_of(arg)]


def without_none(members: Iterable[Any]) -> List[Any]:
    """Returns annotations without that of None."""
    return [member for member in members if member not in (None, type(None))]


def is_exactly(annotation: Any, value: Any) -> bool:
    """Returns whether a value is of the annotated type itself, rather than of one that fits, too."""
    if annotation in (None, type(None)):
        return value is None
    if typing.get_origin(annotation) is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in typing.get_args(annotation))
    return type(value) is annotation and annotation in (bool, int, float, complex, str, bytes)


def expectation(annotation: Any, value: Any) -> str:
    """Returns the message about a value that does not fit."""
    members = members_of(annotation)
    others = without_none(members)
    shown = others[0] if len(others) == 1 and value is not None else bare(annotation)
    return f"expected {annotation_text(shown)}, got {value_text(value)}"


def _is_text_container(kind: Any, args: Sequence[Any], value: Any) -> bool:
    """Returns whether a text is a collection of texts, as for ``Iterable[str]``, other than a sequence."""
    if not isinstance(value, str) or kind.__module__ != "collections.abc" or not isinstance(value, kind):
        return False
    return not issubclass(kind, collections.abc.Sequence) and (not args or args[0] in (str, Any))


def _items(value: Any) -> Iterable[Tuple[Any, Any]]:
    if isinstance(value, collections.abc.Mapping):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    return ((0, item) for item in value) if isinstance(value, collections.abc.Set) else ()


def has_other_length(args: Sequence[Any], items: Sequence[Any]) -> bool:
    """Returns whether a tuple with these annotations has another number of items."""
    if not args or args[-1] is ...:
        return False
    return (0 if args == ((),) else len(args)) != len(items)
