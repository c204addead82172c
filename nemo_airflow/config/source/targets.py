"""Stand-ins for functions and classes of a source, which are never imported."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import functools
import inspect
import keyword
import re
from collections.abc import Iterator, Mapping
from typing import Any

import griffe

from nemo_airflow.config.source.expressions import Reader
from nemo_airflow.config.source.modules import Source, source_at
from nemo_airflow.config.types.parameters import SET_BY_THE_CODE
from nemo_airflow.exceptions import TargetNotImportableError
from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.names import check_name, source_name

_KINDS: Mapping[griffe.ParameterKind, Any] = {
    griffe.ParameterKind.positional_only: inspect.Parameter.POSITIONAL_ONLY,
    griffe.ParameterKind.positional_or_keyword: inspect.Parameter.POSITIONAL_OR_KEYWORD,
    griffe.ParameterKind.var_positional: inspect.Parameter.VAR_POSITIONAL,
    griffe.ParameterKind.keyword_only: inspect.Parameter.KEYWORD_ONLY,
    griffe.ParameterKind.var_keyword: inspect.Parameter.VAR_KEYWORD,
}

_MODELS = ("pydantic.BaseModel", "pydantic.main.BaseModel")

_FIELD_BASES = (*_MODELS, "typing.NamedTuple")
"""Base classes whose annotated fields are the parameters, as for a dataclass."""

_ATTRS_DECORATORS = ("define", "mutable", "frozen", "attrs", "attr.s")

_FIELD_DECORATORS = ("dataclass", *_ATTRS_DECORATORS)
"""Decorators that make annotated fields the parameters: of dataclasses, pydantic and attrs."""

_MODEL_SETTINGS = {
    "names": re.compile(r"(populate|validate)_by_name['\"]?\s*[=:]\s*True"),
    "extra": re.compile(r"extra['\"]?\s*[=:]\s*['\"]allow"),
}
"""Settings of a pydantic model: takes the names of its fields beside their aliases, and any other argument."""

_MAKING: contextvars.ContextVar[frozenset[Any]] = contextvars.ContextVar("making", default=frozenset())


class SourceFunction:
    """A function of a source: its name, signature and docstring, without its body.

    Args:
        name: ``pkg.mod:name``, as a job imports it.
        signature: Its parameters; a default that only the code knows is ``SET_BY_THE_CODE``.
        doc: Its docstring.
        folder: The folder from which it was read, if it was given and is not simply on Python's path.
    """

    def __init__(self, name: str, signature: inspect.Signature, doc: str, folder: str = "") -> None:
        self.__nemo_source__ = name
        self.__nemo_folder__ = folder
        self.__signature__ = signature
        self.__module__, _, self.__qualname__ = name.partition(":")
        self.__name__ = self.__qualname__.rpartition(".")[2]
        self.__doc__ = doc
        self.__annotations__ = _annotations(signature)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses: there is no body here."""
        raise TargetNotImportableError(
            f"{self.__nemo_source__} was read from its source and has no body here: import it to call it here"
        )

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self.__nemo_source__)

    def __repr__(self) -> str:
        return f"<source of {self.__nemo_source__}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> SourceFunction:
        return self  # as a function is

    def __copy__(self) -> SourceFunction:
        return self

    def _identity(self) -> Any:
        return self.__nemo_source__, str(self.__signature__)


class _SourceClass(type):
    """A class of a source. It equals the real class, should that be imported later."""

    __nemo_source__: str

    def __subclasscheck__(cls, other: type) -> bool:
        return any(_name(base) == cls.__nemo_source__ for base in getattr(other, "__mro__", ()))

    def __instancecheck__(cls, value: object) -> bool:
        return cls.__subclasscheck__(type(value))


def check_target_name(name: str) -> None:
    """Checks that a name is ``pkg.mod:name``.

    Raises:
        TargetNotImportableError: It is not.
    """
    try:
        check_name(name)
    except PlanError as error:
        raise TargetNotImportableError(error.message) from None


def target_from_source(name: str, source: Source | str | None = None) -> Any:
    """Returns the stand-in for a function or class of a source: typed, documented, never imported.

    Args:
        name: ``pkg.mod:name``.
        source: Where the code is, or the folder of it; Python's own path when None.

    Raises:
        TargetNotImportableError: The name does not exist; the nearest names are in the message.
    """
    check_target_name(name)
    module, _, qualname = name.partition(":")
    where = source if isinstance(source, Source) else source_at(source)
    found, home, defined_as = where.find(module, qualname)
    if not isinstance(found, (griffe.Class, griffe.Function)):
        raise TargetNotImportableError(f"{name} is a value, not a function or class, so a job cannot call it")
    made = _Targets(where).make(home, defined_as, found)
    if isinstance(made, SourceFunction) and made.__nemo_source__ != name:
        # As its author names it.
        return SourceFunction(name, made.__signature__, made.__doc__ or "", where.folder)
    return made


class _Targets:
    def __init__(self, source: Source) -> None:
        self._source = source

    def make(self, module: str, qualname: str, found: griffe.Object) -> Any:
        """Returns the target of a definition; the same object until the file changes."""
        making = _MAKING.get()
        if found in making:  # a class that is named in its own annotations
            return SET_BY_THE_CODE
        token = _MAKING.set(making | {found})
        try:
            return _made(self._source, module, qualname, found)
        finally:
            _MAKING.reset(token)

    def function(self, name: str, found: griffe.Function, reader: Reader) -> SourceFunction:
        parameters = list(self._parameters(found, reader))
        if isinstance(found.parent, griffe.Class) and "staticmethod" not in found.labels:
            parameters = parameters[1:]
        returned = reader.annotation(found.returns) if found.returns is not None else inspect.Signature.empty
        signature = inspect.Signature(parameters, return_annotation=returned)
        return SourceFunction(name, signature, _doc(found), self._source.folder)

    def cls(self, name: str, found: griffe.Class, reader: Reader) -> type:
        bases = [reader.name(str(base)) for base in found.bases]
        enums = [base for base in bases if isinstance(base, type) and issubclass(base, enum.Enum)]
        if enums:
            return self._enum(name, found, reader, enums[0])
        names = {
            "__nemo_source__": name,
            "__nemo_folder__": self._source.folder,
            "__module__": name.partition(":")[0],
            "__doc__": _doc(found) or None,
        }
        parents = tuple(base for base in bases if isinstance(base, _SourceClass))
        if _has_fields(found, reader) or any(dataclasses.is_dataclass(parent) for parent in parents):
            return self._record(name, found, reader, parents, names)
        made = _SourceClass(found.name, parents or (object,), names)
        made.__qualname__ = name.partition(":")[2]
        constructor = found.members.get("__init__")
        if isinstance(constructor, griffe.Function):
            parameters = list(self._parameters(constructor, reader))[1:]
            made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
            made.__init__ = _Constructor(made.__signature__, _doc(constructor))  # type: ignore[attr-defined,misc]
        elif not any(hasattr(parent, "__signature__") for parent in parents):
            made.__signature__ = _anything() if found.bases else inspect.Signature()  # type: ignore[attr-defined]
        return made

    def _parameters(self, found: griffe.Function, reader: Reader) -> Iterator[inspect.Parameter]:
        for parameter in found.parameters:
            kind = _KINDS[parameter.kind or griffe.ParameterKind.positional_or_keyword]
            variadic = kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            given = parameter.default is not None and not variadic
            default = reader.value(parameter.default) if given else inspect.Parameter.empty
            annotation = reader.annotation(parameter.annotation)
            yield inspect.Parameter(parameter.name, kind, default=default, annotation=annotation)

    def _enum(self, name: str, found: griffe.Class, reader: Reader, base: type[enum.Enum]) -> type:
        values: list[tuple[str, Any]] = []
        for member in found.members.values():
            if not isinstance(member, griffe.Attribute) or member.value is None or member.name.startswith("_"):
                continue
            value = reader.value(member.value)
            # An unknown value can be anything: a plan refers to the member by name.
            values.append((member.name, member.name if value is SET_BY_THE_CODE else value))
        kind = base if base in (enum.IntEnum, enum.StrEnum, enum.Flag, enum.IntFlag) else enum.Enum
        if kind is not enum.Enum and any(not isinstance(value, (int, str, enum.auto)) for _, value in values):
            kind = enum.Enum
        module, _, qualname = name.partition(":")
        make: Any = kind
        made: Any = make(found.name, values, module=module, qualname=qualname)
        made.__nemo_source__ = name
        made.__doc__ = _doc(found) or None
        return made  # type: ignore[no-any-return]

    def _record(
        self, name: str, found: griffe.Class, reader: Reader, parents: tuple[type, ...], names: dict[str, Any]
    ) -> type:
        records: Any = tuple(parent for parent in parents if dataclasses.is_dataclass(parent))
        is_model = any(reader.path_of(str(base)) in _MODELS for base in found.bases)
        is_model = is_model or any(parent.__nemo_model__ is not None for parent in records)
        settings = _model_settings(found).union(*(parent.__nemo_model__ or () for parent in records))
        names = {**names, "__nemo_model__": settings if is_model else None}
        fields = list(self._fields(found, reader, is_model=is_model))
        made: Any = dataclasses.make_dataclass(found.name, fields, bases=records or (_Root,), namespace=names)
        made.__qualname__ = name.partition(":")[2]
        made.__module__ = names["__module__"]
        if is_model and "names" in settings:
            made.__nemo_names__ = {field.metadata["name"]: field.name for field in dataclasses.fields(made)}
        if is_model and "extra" in settings:
            own = list(inspect.signature(made.__init__).parameters.values())[1:]
            made.__signature__ = inspect.Signature([*own, *_anything().parameters.values()])
        return made  # type: ignore[no-any-return]

    def _fields(self, found: griffe.Class, reader: Reader, *, is_model: bool) -> Iterator[tuple[str, Any, Any]]:
        by_name = is_model or any("kw_only=True" in str(decorator.value) for decorator in found.decorators)
        for member in found.members.values():
            if not isinstance(member, griffe.Attribute) or member.annotation is None:
                continue
            text = str(member.annotation)
            by_name = by_name or "KW_ONLY" in text
            of_class = "instance-attribute" not in member.labels  # a ClassVar
            if of_class or "KW_ONLY" in text or (member.name.startswith("_") and is_model):
                continue
            settings = _field_settings(member, reader)
            if settings.get("init") is False:
                continue
            made: dict[str, Any] = {"kw_only": bool(settings.get("kw_only", by_name))}
            if "default_factory" in settings or "factory" in settings:
                factory = settings.get("default_factory", settings.get("factory"))
                made["default_factory"] = factory if callable(factory) else SET_BY_THE_CODE
            elif "default" in settings:
                default = settings["default"]
                changes = default is SET_BY_THE_CODE or type(default).__hash__ is None
                made["default_factory" if changes else "default"] = (
                    functools.partial(_copied, default) if changes and default is not SET_BY_THE_CODE else default
                )
            made["metadata"] = {"doc": settings.get("description") or _doc(member), "name": member.name}
            name = _argument_name(found, member, settings)
            yield name, reader.annotation(member.annotation), dataclasses.field(**made)


class _Root(metaclass=_SourceClass):
    __nemo_source__ = ""
    __nemo_model__: frozenset[str] | None = None  # the settings of a pydantic model


class _Constructor:
    """Holds the annotations and the docstring of a class's ``__init__``."""

    def __init__(self, signature: inspect.Signature, doc: str) -> None:
        self.__annotations__ = _annotations(signature)
        self.__doc__ = doc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TargetNotImportableError(
            "this class was read from its source and cannot be instantiated here: import it first"
        )


@functools.lru_cache(maxsize=8192)
def _made(source: Source, module: str, qualname: str, found: griffe.Object) -> Any:
    name = f"{module}:{qualname}"
    home = source.module(module)
    assert home is not None  # noqa: S101 - for the type checker: the definition is in it
    targets = _Targets(source)
    reader = Reader(source, home, targets.make)
    if isinstance(found, griffe.Function):
        return targets.function(name, found, reader)
    assert isinstance(found, griffe.Class)  # noqa: S101 - as above: what calls us has looked
    return targets.cls(name, found, reader)


def _has_fields(found: griffe.Class, reader: Reader) -> bool:
    if "__init__" in found.members:
        return False
    decorators = [str(decorator.value).partition("(")[0] for decorator in found.decorators]
    if any(name.endswith(_FIELD_DECORATORS) for name in decorators):
        return True
    return any(reader.path_of(str(base)) in _FIELD_BASES for base in found.bases)


def _model_settings(found: griffe.Class) -> frozenset[str]:
    given = [f"{name}={value}" for name, value in found.keywords.items()]
    if isinstance(config := found.members.get("model_config"), griffe.Attribute):
        given.append(str(config.value))
    return frozenset(name for name, pattern in _MODEL_SETTINGS.items() if any(map(pattern.search, given)))


def _argument_name(found: griffe.Class, member: griffe.Attribute, settings: Mapping[str, Any]) -> str:
    """Returns the name under which a constructor takes a field: its alias; for attrs, without leading underscores."""
    for alias in (settings.get("alias"), settings.get("validation_alias")):
        if isinstance(alias, str) and alias.isidentifier() and not keyword.iskeyword(alias):
            return alias
    name = member.name
    if name.startswith("__") and not name.endswith("__"):  # Python mangles it
        name = f"_{found.name.lstrip('_')}{name}"
    decorators = [str(decorator.value).partition("(")[0] for decorator in found.decorators]
    return name.lstrip("_") if any(each.endswith(_ATTRS_DECORATORS) for each in decorators) else name


def _field_settings(member: griffe.Attribute, reader: Reader) -> dict[str, Any]:
    """Returns the settings of a field from ``field(...)``, ``Field(...)`` or a plain default."""
    value = member.value
    if value is None:
        return {}
    if not isinstance(value, griffe.ExprCall):
        return {"default": reader.value(value)}
    called = str(value.function).rpartition(".")[2]
    if called not in ("field", "Field", "ib", "attrib"):
        return {"default": reader.value(value)}
    settings: dict[str, Any] = {}
    for number, argument in enumerate(value.arguments):
        if isinstance(argument, griffe.ExprKeyword):
            settings[argument.name] = reader.value(argument.value)
        elif number == 0 and called == "Field" and str(argument) != "...":
            settings["default"] = reader.value(argument)
    return settings


def _name(base: type) -> str:
    return source_name(base) or f"{base.__module__}:{base.__qualname__}"


def _copied(value: Any) -> Any:
    return value.copy()


def _annotations(signature: inspect.Signature) -> dict[str, Any]:
    found = {p.name: p.annotation for p in signature.parameters.values() if p.annotation is not p.empty}
    if signature.return_annotation is not inspect.Signature.empty:
        found["return"] = signature.return_annotation
    return found


def _anything() -> inspect.Signature:
    return inspect.Signature([inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)])


def _doc(found: griffe.Object) -> str:
    return found.docstring.value if found.docstring is not None else ""
