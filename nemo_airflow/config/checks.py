"""Values against annotations, by pydantic: strict when a value is set, lenient where it comes as text.

pydantic checks plain values. What is special to a config is put around it: at each place of an
annotation a config whose target yields the right type fits as well, and so does a value that is
yet to come. An annotation that pydantic cannot handle is taken as ``Any``.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import enum
import functools
import json
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal, Union

import fiddle as fdl
import pydantic
import typing_extensions
from pydantic_core import PydanticCustomError

from nemo_airflow.config.graph import is_deferred
from nemo_airflow.config.representation import annotation_text, value_text
from nemo_airflow.config.results import result_fits

_SETTINGS = pydantic.ConfigDict(arbitrary_types_allowed=True)

_ONE_PASS = (collections.abc.Iterable, collections.abc.Collection, collections.abc.Container, collections.abc.Iterator)
"""What pydantic takes lazily: the elements would go unchecked."""

_CONTAINER_MODULES = ("builtins", "collections", "collections.abc")

_MEMBERS_BY_NAME = "members_by_name"

UNIONS = (Union, types.UnionType)
"""The origins of ``Union[X, Y]`` and ``X | Y``."""


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why a value does not fit.

    Attributes:
        keys: Where in the value; empty for the value itself.
        message: For example ``expected int, got 'x'``.
    """

    keys: tuple[Any, ...]
    message: str


def check(annotation: Any, value: Any) -> Misfit | None:
    """Checks a value strictly: an int is a float, but a bool is no int and a text is no number.

    Returns:
        Why it does not fit, or None.
    """
    adapter = _adapter(annotation)
    if adapter is None:
        return None
    try:
        adapter.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        return _misfit(annotation, value, error)
    except Exception:  # noqa: BLE001 - validators of other people's types may raise anything: then we cannot judge
        return None
    return None


def read_plain(annotation: Any, value: Any) -> Any:
    """Returns a value that came as plain JSON types as the annotation wants it: a list as a tuple, a text as a Path.

    Numbers are never read from texts here.

    Raises:
        MisfitError: It does not fit.
    """
    if check(annotation, value) is None:
        return value
    converted = _from_plain(annotation, value)
    misfit = check(annotation, converted)
    if misfit is not None:
        raise MisfitError(misfit)
    return converted


def read_value(annotation: Any, value: Any) -> Any:
    """Returns a value of unknown origin (a rendered template, another task's output) as the annotation wants it.

    Raises:
        MisfitError: It does not fit.
    """
    if check(annotation, value) is None:
        return value
    return read_text(annotation, value) if isinstance(value, str) else read_lenient(annotation, value)


def read_text(annotation: Any, text: str) -> Any:
    """Returns a text as typed by hand as the annotation wants it: a literal (``3``, ``[1, 2]``) where that fits.

    Raises:
        MisfitError: It does not fit.
    """
    for literal in _literals(text):
        if check(annotation, literal) is None:
            return literal
    try:
        return read_lenient(annotation, text)
    except MisfitError:
        for literal in _literals(text):
            try:
                return read_lenient(annotation, literal)
            except MisfitError:
                continue
        raise


def read_lenient(annotation: Any, value: Any) -> Any:
    """Returns a value converted to the annotation where pydantic knows how, itself where it fits already.

    Raises:
        MisfitError: It does not fit.
    """
    misfit = check(annotation, value)
    adapter = _adapter(annotation)
    if misfit is None or adapter is None:
        return value
    try:
        return adapter.validate_python(value, strict=False, context={_MEMBERS_BY_NAME: True})
    except (TypeError, ValueError):
        raise MisfitError(misfit) from None


class MisfitError(ValueError):
    """A value that cannot be read as its annotation wants it.

    Args:
        misfit: Where and why.
    """

    def __init__(self, misfit: Misfit) -> None:
        self.misfit = misfit
        super().__init__(misfit.message)


def _from_plain(annotation: Any, value: Any) -> Any:
    """Returns what JSON types stand for where an annotation wants other types, as far as that is plain."""
    if isinstance(value, dict):
        return {key: _from_plain(element(annotation, key, value), item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_from_plain(element(annotation, index, value), item) for index, item in enumerate(value)]
        kind = _class_of(_plain(annotation, value))
        hashable = all(isinstance(item, collections.abc.Hashable) for item in items)
        return kind(items) if kind is tuple or (kind in (set, frozenset) and hashable) else items
    if check(annotation, value) is None or not isinstance(value, (str, int, float)):
        return value
    members = typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,)
    for member in members:
        with contextlib.suppress(Exception):  # it is not of this member, or of a type that pydantic does not know
            if isinstance(member, type) and issubclass(member, enum.Enum):
                return member.__members__.get(str(value)) or member(value)
            return _json_adapter(member).validate_json(json.dumps(value), strict=True)
    return value


@functools.lru_cache(maxsize=1024)
def _json_adapter(annotation: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(annotation)


def element(annotation: Any, key: Any, container: Any) -> Any:
    """Returns the annotation of what a container holds under a key, ``Any`` where there is none."""
    annotation = _plain(annotation, container)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if typing_extensions.is_typeddict(origin or annotation):
        return typing.get_type_hints(origin or annotation, include_extras=True).get(key, Any)
    if not isinstance(origin, type) or not args:
        return Any
    if issubclass(origin, tuple):
        if len(args) == 2 and args[1] is ...:
            return args[0]
        return args[key] if isinstance(key, int) and key < len(args) else Any
    if issubclass(origin, collections.abc.Mapping):
        return args[1] if len(args) == 2 else Any
    return args[0] if issubclass(origin, collections.abc.Iterable | collections.abc.Container) else Any


def json_schema(annotation: Any) -> dict[str, Any] | None:
    """Returns the annotation's JSON schema, or None where it has none."""
    try:
        return pydantic.TypeAdapter(annotation, config=None).json_schema()
    except Exception:  # noqa: BLE001 - schemas of other people's types may raise anything
        return None


def _adapter(annotation: Any) -> pydantic.TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed
        return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> pydantic.TypeAdapter[Any] | None:
    opened = _open(annotation)
    if opened is Any:
        return None
    for settings in (_SETTINGS, None):  # some types have settings of their own, and take no others
        with contextlib.suppress(Exception):  # an annotation may be any object, and pydantic asks it for its schema
            return pydantic.TypeAdapter(opened, config=settings)
    return None


_cached_adapter = functools.lru_cache(maxsize=4096, typed=True)(_new_adapter)


def _open(annotation: Any) -> Any:
    """Returns the annotation with a config or a deferred value let in at each place."""
    if annotation is None or annotation is type(None):
        return _let_in(type(None))
    if isinstance(annotation, typing.TypeVar):
        bound = annotation.__bound__ or (_union(annotation.__constraints__) if annotation.__constraints__ else Any)
        return _open(bound)
    if isinstance(annotation, typing.NewType):
        return _open(annotation.__supertype__)
    if isinstance(annotation, dataclasses.InitVar):
        return _open(annotation.type)
    if isinstance(annotation, typing_extensions.TypeAliasType):
        return _open(annotation.__value__)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is not None:
        return _open_generic(annotation, origin, args)
    if annotation in (Callable, typing.Callable):
        return _let_in(typing.Callable)
    if isinstance(annotation, type) and annotation is not object:
        return _open_class(annotation)
    return Any


def _open_class(annotation: type) -> Any:
    if getattr(annotation, "_is_protocol", False) and not getattr(annotation, "_is_runtime_protocol", False):
        return Any
    if typing_extensions.is_typeddict(annotation):
        return _let_in(annotation, _open_typed_dict(annotation))
    if annotation in _ONE_PASS:
        return _open_generic(annotation, annotation, (Any,))
    if dataclasses.is_dataclass(annotation) or issubclass(annotation, fdl.Buildable):
        # An instance only: its fields are checked as those of a config are, with their own paths.
        return _let_in(annotation, pydantic.InstanceOf[annotation])  # type: ignore[misc,valid-type]  # made at run time
    return _let_in(annotation)


def _open_typed_dict(annotation: Any) -> Any:
    fields: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(annotation, include_extras=True).items():
        presence = typing.Required if name in annotation.__required_keys__ else typing.NotRequired
        fields[name] = presence[_open(kind)]
    make: Any = typing_extensions.TypedDict
    opened = make(annotation.__name__, fields)
    opened.__pydantic_config__ = pydantic.ConfigDict(**_SETTINGS, extra="forbid")
    return opened


def _open_generic(annotation: Any, origin: Any, args: tuple[Any, ...]) -> Any:
    if origin is Annotated:
        inner = _open(args[0])
        return _let_in(args[0], Annotated[(inner, *args[1:])])
    if origin in UNIONS:
        return _union(map(_open, args))
    if origin in (typing.Final, typing.ClassVar, typing_extensions.Required, typing_extensions.NotRequired):
        return _open(args[0])
    if origin is collections.abc.Callable:
        return _let_in(typing.Callable)
    if origin in _ONE_PASS:
        item: Any = _open(args[0]) if args else Any
        forms: list[Any] = [collections.abc.Sequence[item], set[item], frozenset[item], dict[item, Any]]
        return _let_in(origin, _union([*forms, *([str] if not args or args[0] in (str, Any) else [])]))
    if origin is Literal or origin is type or not isinstance(origin, type):
        return _let_in(annotation)
    if issubclass(origin, collections.abc.Collection) and origin.__module__ in _CONTAINER_MODULES and args:
        generic: Any = origin
        return _let_in(origin, generic[tuple(arg if arg is ... else _open(arg) for arg in args)])
    return _let_in(origin)


def _union(members: Iterable[Any]) -> Any:
    return functools.reduce(lambda left, right: Union[left, right], members)  # noqa: UP007 - members need no "|"


def _let_in(annotation: Any, opened: Any = None) -> Any:
    return Annotated[annotation if opened is None else opened, pydantic.WrapValidator(_validator(annotation))]


def _validator(annotation: Any) -> Callable[[Any, pydantic.ValidatorFunctionWrapHandler, pydantic.ValidationInfo], Any]:
    literal = typing.get_origin(annotation) is Literal
    members = annotation if isinstance(annotation, type) and issubclass(annotation, enum.Enum) else None

    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler, info: pydantic.ValidationInfo) -> Any:
        if isinstance(value, fdl.Buildable) and not (isinstance(annotation, type) and isinstance(value, annotation)):
            if result_fits(value, annotation):
                return value
            raise PydanticCustomError("config", "wrong result")
        if is_deferred(value):
            return value
        if members is not None and info.context and isinstance(value, str) and value in members.__members__:
            return members[value]
        out = handler(value)
        if literal and isinstance(value, bool) is not isinstance(out, bool):
            raise PydanticCustomError("literal_error", "a bool is no int")
        return out

    return validate


def _plain(annotation: Any, value: Any) -> Any:
    """Returns an annotation without what is around it, and the one member of a union that can hold the value."""
    while True:
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if origin is Annotated or origin in (typing.Final, typing_extensions.Required, typing_extensions.NotRequired):
            annotation = args[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, typing_extensions.TypeAliasType):
            annotation = annotation.__value__
        elif origin in UNIONS:
            members = [arg for arg in args if arg is not type(None) or value is None]
            holders = [arg for arg in members if isinstance(value, _class_of(arg))] if len(members) > 1 else members
            if len(holders) != 1:
                return annotation
            annotation = holders[0]
        else:
            return annotation


def _class_of(annotation: Any) -> type:
    origin = typing.get_origin(annotation) or annotation
    return origin if isinstance(origin, type) else object


def _misfit(annotation: Any, value: Any, error: pydantic.ValidationError) -> Misfit:
    annotation = _plain(annotation, value)
    below = _misfit_below(annotation, value)
    if below is not None:
        return below
    details = error.errors(include_url=False, include_context=False, include_input=False)
    details = [detail for detail in details if detail["type"] != "none_required"]  # the None of an Optional
    if len(details) == 1 and details[0]["type"] in _CONSTRAINTS:
        message = details[0]["msg"]
        return Misfit((), f"{message[:1].lower()}{message[1:]}, got {value_text(value)}")
    return Misfit((), f"expected {annotation_text(annotation)}, got {value_text(value)}")


def _misfit_below(annotation: Any, value: Any) -> Misfit | None:
    """Returns what is wrong with the first wrong element, since pydantic's own paths name its schemas too."""
    if isinstance(value, dict):
        args = typing.get_args(annotation)
        for key in value if len(args) == 2 else ():
            if (misfit := check(args[0], key)) is not None:
                return Misfit((), f"the key {value_text(key)}: {misfit.message}")
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, (set, frozenset)):
        items = ((None, item) for item in value)
    else:
        return None
    for key, item in items:
        misfit = check(element(annotation, 0 if key is None else key, value), item)
        if misfit is not None:
            return Misfit(misfit.keys if key is None else (key, *misfit.keys), misfit.message)
    return None


_CONSTRAINTS = frozenset(
    {
        "assertion_error",
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
"""Kinds of pydantic's errors that say more than that the type is wrong."""


def _literals(text: str) -> Sequence[Any]:
    """Returns what a text means as a literal, if anything, apart from the text itself."""
    from nemo_airflow.config.yaml_text import literal_from_text

    try:
        return [literal_from_text(text)]
    except ValueError:
        return []
