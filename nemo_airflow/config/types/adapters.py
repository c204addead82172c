"""Annotations as pydantic's adapters, in which a config or a deferred value fits at each place.

An adapter asks pydantic first, and us only about what pydantic refuses, so that a list of a
million numbers costs what pydantic takes for it. It checks strictly, and its result is not used: values are
read by :mod:`nemo_airflow.language.overrides.values`.
"""

from __future__ import annotations

import collections.abc
import contextlib
import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import re
import threading
import typing
import warnings
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, Union

import fiddle as fdl
import pydantic
import typing_extensions
from pydantic_core import PydanticCustomError, core_schema

from nemo_airflow.config.types.annotations import (
    ALIASES,
    CONVERTING,
    QUALIFIERS,
    UNIONS,
    UNPACK,
    alias_value,
    has_members,
    noted,
    protocol_members,
    strip_qualifiers,
    tuple_items,
    typed_dict_fields,
)
from nemo_airflow.config.types.graph import is_deferred
from nemo_airflow.config.types.models import imports_texts, is_import_string
from nemo_airflow.config.types.results import result_fits, takes
from nemo_airflow.language.artifact import Artifact

_SETTINGS = pydantic.ConfigDict(arbitrary_types_allowed=True)
_NUMBERS = (int, float, complex, decimal.Decimal, datetime.datetime, datetime.date, datetime.time, datetime.timedelta)
_NATIVE = (list, dict, set, frozenset)
_CONTAINER_MODULES = ("builtins", "collections", "collections.abc")
_TEXTS = (str, bytes, bytearray)
_NEVER = (typing.Never, typing.NoReturn, typing_extensions.Never, typing_extensions.NoReturn)
_BOOLS = (typing.TypeGuard, typing_extensions.TypeGuard, typing_extensions.TypeIs)
_WIDENED: typing.Mapping[type, tuple[type, ...]] = {float: (int,), complex: (int, float)}


def adapter(annotation: Any) -> pydantic.TypeAdapter[Any] | None:
    """Returns the adapter of an annotation, or None where any value fits."""
    try:
        return _cached_adapter(annotation)
    except TypeError:  # an annotation that cannot be hashed
        return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> pydantic.TypeAdapter[Any] | None:
    opened = _Opening().open(annotation)
    return None if opened is Any else _pydantics(opened)


_cached_adapter = functools.lru_cache(maxsize=8192, typed=True)(_new_adapter)


def _pydantics(annotation: Any) -> pydantic.TypeAdapter[Any] | None:
    # The filters are those of the process: of two threads, the later one would put back what the other has set.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about what pydantic does not protect: we only ask whether it fits
        for settings in (_SETTINGS, None):  # some types have settings of their own, and take no others
            with contextlib.suppress(Exception):  # any object may be an annotation, and is asked for its schema
                return pydantic.TypeAdapter(annotation, config=settings)
    return None


_WARNINGS = threading.RLock()  # making one adapter may make another


@functools.lru_cache(maxsize=4096)
def _is_known(kind: type) -> bool:
    return _pydantics(kind) is not None


class _Place:
    """A place in an annotation: also accepts a config of the right result, and deferred values."""

    def __init__(self, annotation: Any, *, ours_first: bool) -> None:
        self._annotation = annotation
        self._ours_first = ours_first

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        inner = handler(source)
        if self._ours_first:
            return core_schema.no_info_wrap_validator_function(self._first, inner)
        ours = core_schema.no_info_plain_validator_function(self._let_in)
        return core_schema.union_schema([inner, ours], mode="left_to_right")

    def _let_in(self, value: Any) -> Any:
        if isinstance(value, fdl.Buildable):
            if result_fits(value, self._annotation):
                return value
        elif is_deferred(value) or (isinstance(value, Artifact) and _takes_artifact(self._annotation)):
            return value
        raise PydanticCustomError("config", "neither a matching config nor a deferred value")

    def _first(self, value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        kind = self._annotation
        if isinstance(value, fdl.Buildable) and not (isinstance(kind, type) and isinstance(value, kind)):
            return self._let_in(value)
        if is_deferred(value) or isinstance(value, Artifact):
            return self._let_in(value)
        out = handler(value)
        if type(value) is bool and type(out) in _NUMBERS:  # which pydantic makes of it
            raise PydanticCustomError("type", "a bool is not a number")
        return out


def _takes_artifact(annotation: Any) -> bool:
    """Returns whether a job gets an artifact at a place of that annotation: as a path, or as it is."""
    kind = typing.get_origin(annotation) or annotation
    return isinstance(kind, type) and (issubclass(Artifact, kind) or issubclass(pathlib.Path, kind))


class _Opening:
    """Turns an annotation into the one that pydantic is given.

    Args:
        converting: Whether the target itself converts, so that what pydantic converts fits too.
    """

    def __init__(self, converting: bool = False) -> None:
        self._converting = converting
        self._above: list[Any] = []

    def open(self, annotation: Any) -> Any:
        """Returns the opened annotation; ``Any`` where the values are not constrained."""
        if any(_same(annotation, above) for above in self._above):
            return _later(annotation)
        self._above.append(annotation)
        try:
            return self._open(annotation)
        finally:
            self._above.pop()

    def _open(self, annotation: Any) -> Any:
        if annotation is None or annotation is type(None):
            return self._place(type(None))
        if is_import_string(annotation):
            return Any  # the job's code imports what a text names; this process does not
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if isinstance(annotation, typing.TypeVar):
            constraints = _union(annotation.__constraints__) if annotation.__constraints__ else None
            return self.open(annotation.__bound__ or constraints or Any)
        if isinstance(annotation, typing.NewType):
            return self.open(annotation.__supertype__)
        if isinstance(annotation, dataclasses.InitVar):
            return self.open(annotation.type)
        if isinstance(annotation, ALIASES) or isinstance(origin, ALIASES):
            return self.open(alias_value(annotation))
        if any(annotation is never for never in _NEVER):
            return self._place(annotation, _tested(lambda _: False))
        if annotation is typing.LiteralString or annotation is typing_extensions.LiteralString:
            return self._place(str)
        if annotation is Callable or origin is collections.abc.Callable:
            return self._callable(annotation, args)
        if (names := protocol_members(annotation)) is not None:
            return self._protocol(annotation, names)
        if origin is not None:
            return self._generic(annotation, origin, args)
        return self._class(annotation) if isinstance(annotation, type) and annotation is not object else Any

    def _class(self, kind: type) -> Any:
        if typing_extensions.is_typeddict(kind):
            return self._typed_dict(kind)
        if kind.__module__ == "typing":  # typing.IO, of which files are no instances
            return Any
        if kind.__module__ == "collections.abc" and issubclass(
            kind, collections.abc.Iterable | collections.abc.Container
        ):
            return self._container(kind, ())
        if dataclasses.is_dataclass(kind) or issubclass(kind, fdl.Buildable) or hasattr(kind, "_fields"):
            # An instance only: its fields are checked as those of a config are, with their own paths.
            return self._place(kind, self._instance(kind))
        if not _is_known(kind):
            return Any if hasattr(kind, "__get_pydantic_core_schema__") else self._place(kind, self._instance(kind))
        if imports_texts(kind):
            made: Any = pydantic.InstanceOf
            return self._place(kind, made[kind])
        if self._converting:
            return self._place(kind)
        if issubclass(kind, pydantic.BaseModel | re.Pattern | enum.Enum):
            return self._place(kind, self._instance(kind))
        if kind.__module__ != "builtins" or kind is complex:
            return self._place(kind, Annotated[kind, pydantic.WrapValidator(_unconverted(kind))])
        return self._place(kind)

    def _instance(self, kind: Any) -> Any:
        made: Any = pydantic.InstanceOf
        instance = made[kind]
        if self._converting and not issubclass(kind, fdl.Buildable) and _is_known(kind) and not imports_texts(kind):
            return _union([instance, kind])
        return instance

    def _generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> Any:
        if origin is Annotated:
            return self._annotated(args[0], annotation.__metadata__)
        if origin in UNIONS:
            return _union(map(self.open, args))
        if origin in QUALIFIERS or origin in UNPACK:
            return self.open(args[0])
        if origin in _BOOLS:
            return self._place(bool)
        if origin is Literal:
            return self._place(annotation, Annotated[annotation, pydantic.WrapValidator(_literal)])
        if typing_extensions.is_typeddict(origin):
            return self._typed_dict(annotation)
        if origin is type:
            return self._place(annotation)
        if not isinstance(origin, type):
            return Any
        if origin is tuple and annotation is not typing.Tuple:  # noqa: UP006 - that very object
            return self._place(origin, self._tuple(annotation))
        if origin.__module__ in _CONTAINER_MODULES and issubclass(
            origin, collections.abc.Iterable | collections.abc.Container
        ):
            return self._container(origin, args)
        if origin is re.Pattern:
            return self._place(
                origin, _tested(lambda value: isinstance(value, re.Pattern) and type(value.pattern) in args)
            )
        return self.open(origin)

    def _annotated(self, inner: Any, notes: tuple[Any, ...]) -> Any:
        if CONVERTING in notes:
            notes = tuple(note for note in notes if note is not CONVERTING)
            opened = _Opening(converting=True).open(inner)
        else:
            opened = self.open(inner)
        if typing.get_origin(strip_qualifiers(inner)) in UNIONS:
            # Which member JSON selects matters only to readers of JSON.
            notes = tuple(note for note in notes if getattr(note, "discriminator", None) is None)
        if not notes:
            return opened
        if typing.get_origin(opened) is Annotated and isinstance(opened.__metadata__[-1], _Place):
            # The metadata describes the values themselves, so it goes inside.
            *own, _ = opened.__metadata__
            opened_value = noted(opened.__origin__, *own, *notes)
        else:
            opened_value = noted(opened, *notes)
        if _pydantics(opened_value) is None:
            return opened  # metadata that pydantic cannot use does not disable the rest
        return Annotated[opened_value, _Place(inner, ours_first=True)]

    def _callable(self, annotation: Any, args: tuple[Any, ...]) -> Any:
        return self._place(annotation, _tested(lambda value: callable(value) and takes(value, args)))

    def _protocol(self, annotation: Any, names: frozenset[str]) -> Any:
        # A config seems to have every attribute, so it is checked first.
        return self._place(
            annotation, _tested(lambda value: not isinstance(value, fdl.Buildable) and has_members(value, names))
        )

    def _typed_dict(self, annotation: Any) -> Any:
        fields, extra = typed_dict_fields(annotation)
        opened = {
            name: (typing.Required if required else typing.NotRequired)[self.open(kind)]
            for name, (kind, required) in fields.items()
        }
        make: Any = typing_extensions.TypedDict
        form = make((typing.get_origin(annotation) or annotation).__name__, opened)
        form.__pydantic_config__ = pydantic.ConfigDict(**_SETTINGS, extra="forbid" if extra is None else "allow")
        if extra is not None:
            others = self.open(extra)
            form = Annotated[form, pydantic.WrapValidator(_with_others(frozenset(fields), others))]
        return self._place(dict, form)

    def _tuple(self, annotation: Any) -> Any:
        items, variadic = tuple_items(annotation)
        return Annotated[Any, _TupleSchema([self.open(item) for item in items], variadic)]

    def _container(self, kind: Any, args: tuple[Any, ...]) -> Any:
        is_mapping = issubclass(kind, collections.abc.Mapping)
        if kind is collections.Counter:
            args = (args[0] if args else Any, int)
        opened = [self.open(arg) for arg in args]
        if kind in _NATIVE:
            generic: Any = kind
            shown = opened[:1] if kind is collections.Counter else opened
            return self._place(kind, generic[tuple(shown)] if args else generic)
        takes_text = not issubclass(kind, collections.abc.Sequence) and (not args or args[0] in (str, Any))
        if issubclass(kind, collections.abc.ItemsView):
            pair: Any = tuple
            opened = [pair[tuple(opened)]] if opened else []
        elif issubclass(kind, collections.abc.ValuesView | collections.abc.KeysView):
            opened = opened[:1]
        whole: Any = dict if is_mapping else list
        if len(opened) == (2 if is_mapping else 1):
            whole = whole[tuple(opened)]
        return self._place(kind, Annotated[whole, pydantic.WrapValidator(_elements(kind, is_mapping, takes_text))])

    def _place(self, annotation: Any, opened: Any = None) -> Any:
        place = _Place(annotation, ours_first=False)
        return Annotated[annotation if opened is None else opened, place]


class _TupleSchema:
    """A tuple whose items are opened annotations, one of them perhaps for any number of items."""

    def __init__(self, items: list[Any], variadic: int | None) -> None:
        self._items, self._variadic = items, variadic

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        schemas = [handler.generate_schema(item) for item in self._items]
        return core_schema.tuple_schema(schemas, variadic_item_index=self._variadic)


def _tested(test: Callable[[Any], bool]) -> Any:
    def validate(value: Any) -> Any:
        if test(value):
            return value
        raise PydanticCustomError("type", "wrong type")

    return Annotated[Any, pydantic.PlainValidator(validate)]


def _later(annotation: Any) -> Any:
    """Returns a schema that looks up the adapter at each value, for an annotation that contains itself."""

    def validate(value: Any) -> Any:
        found = adapter(annotation)
        return value if found is None else found.validate_python(value, strict=True)

    return Annotated[Any, pydantic.PlainValidator(validate)]


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - any object may be an annotation, and comparing it may raise anything
        return False


def _union(members: Iterable[Any]) -> Any:
    return functools.reduce(lambda left, right: Union[left, right], members)  # noqa: UP007 - members need no "|"


def _unconverted(kind: type) -> Callable[[Any, pydantic.ValidatorFunctionWrapHandler], Any]:
    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        out = handler(value)
        # Pydantic's own types, as of a URL, are written as texts by everyone.
        if type(out) is type(value) or isinstance(value, kind) or type(value) in _WIDENED.get(kind, ()):
            return out
        if kind.__module__.partition(".")[0] == "pydantic" and not issubclass(kind, pydantic.SecretStr):
            return out
        raise PydanticCustomError("type", "wrong type")

    return validate


def _literal(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
    out = handler(value)
    if type(value) in (bool, int, float) and type(out) is not type(value):
        raise PydanticCustomError("literal_error", "a number of another type")
    return out


def _elements(kind: type, is_mapping: bool, takes_text: bool) -> Callable[[Any, Any], Any]:
    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        if not isinstance(value, kind) or (isinstance(value, _TEXTS) and not takes_text):
            raise PydanticCustomError("type", "wrong type")
        if isinstance(value, str):
            return value
        if is_mapping:
            handler(dict(typing.cast(collections.abc.Mapping[Any, Any], value)))
        elif isinstance(value, collections.abc.Collection):  # and not an iterator, which checking would consume
            handler(value if type(value) is list else list(value))
        return value

    return validate


def _with_others(names: frozenset[str], others: Any) -> Callable[[Any, Any], Any]:
    found = _pydantics(dict[str, others])

    def validate(value: Any, handler: pydantic.ValidatorFunctionWrapHandler) -> Any:
        out = handler(value)
        if found is not None:
            found.validate_python({key: item for key, item in value.items() if key not in names}, strict=True)
        return out

    return validate
