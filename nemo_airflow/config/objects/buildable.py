"""``Config`` and ``Partial``: those of Fiddle, with each value checked when it is set."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import os
import types
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, ParamSpec, Self, dataclass_transform, overload

import fiddle as fdl
from fiddle import history as fiddle_history
from fiddle.tagging import TaggedValueCls
from typing_extensions import TypeVar

from nemo_airflow.config.objects.faults import are_noted, note_fault, noting
from nemo_airflow.config.objects.origins import find_caller
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.parameters import NO_DEFAULT, Parameter, parameters_of
from nemo_airflow.config.types.representation import config_text
from nemo_airflow.exceptions import ConfigError, ParameterTypeError, TargetNotImportableError, UnknownParameterError
from nemo_airflow.language.config_classes import add_record
from nemo_airflow.language.names import target_name
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.plan.grammar import is_reserved, join
from nemo_airflow.language.texts import short_name

if TYPE_CHECKING:
    from typing import Any as _Base
else:
    _Base = object

P = ParamSpec("P")
T = TypeVar("T", default=Any)

# Callables of which the first arguments are left out: they are set later, or given by the caller of a ``Partial``.
_After1 = Callable[Concatenate[Any, P], T]
_After2 = Callable[Concatenate[Any, Any, P], T]
_After3 = Callable[Concatenate[Any, Any, Any, P], T]

# Fiddle's history skips these files, so that it names the user's line as the place where a value was set.
for _file in (
    *(f"nemo_airflow/config/objects/{name}.py" for name in ("buildable", "recipe", "conversion")),
    "nemo_airflow/config/changes/overrides.py",
    "nemo_airflow/config/plan/decoding.py",
    *(f"fiddle/_src/{name}.py" for name in ("tagging", "selectors", "arg_factory")),
):
    fiddle_history.add_exclude_location(os.path.normpath(_file))


class _Checked(_Base):  # type: ignore[misc]  # Any, so that a config fits where what it makes does
    """What ``Config`` and ``Partial`` add to their Fiddle base classes."""

    def __init__(self, fn_or_cls: Any, /, *args: Any, **kwargs: Any) -> None:
        if isinstance(fn_or_cls, str):
            from nemo_airflow.config.source import target_from_source

            fn_or_cls = target_from_source(fn_or_cls)
        target_name(fn_or_cls)
        kwargs = by_parameter(fn_or_cls, kwargs, "")
        if are_noted():
            kwargs = {name: value for name, value in kwargs.items() if self._takes(fn_or_cls, name)}
        _check_names(fn_or_cls, args, kwargs)
        super().__init__(fn_or_cls, *args, **kwargs)

    def _takes(self, target: Any, name: str) -> bool:
        """Returns whether a target takes an argument; notes a fault if not."""
        with noting(self):
            check_name(target, name, name)
            return True
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        if are_noted() and not self._takes(self.__fn_or_cls__, name):
            return
        check_name(self.__fn_or_cls__, name, "")
        super().__setattr__(parameters_of(self.__fn_or_cls__).name_of(name), value)

    def __getattr__(self, name: str) -> Any:
        if name[:2] != "__":
            name = parameters_of(self.__fn_or_cls__).name_of(name)
        return super().__getattr__(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(parameters_of(self.__fn_or_cls__).name_of(name))

    def _arguments_set_value(self, key: int | str, value: Any) -> None:
        # Fiddle takes the value out of a tag's placeholder, if it has one.
        held = value.__arguments__.get("value", value) if isinstance(value, TaggedValueCls) else value
        try:
            check_argument(self.__fn_or_cls__, key, held, "" if are_noted() else short_name(self.__fn_or_cls__))
        except ConfigError as error:
            if not note_fault(error, self):
                raise
        super()._arguments_set_value(key, value)

    def __build__(self, /, *args: Any, **kwargs: Any) -> Any:
        for key, value in self.__arguments__.items():  # lists and dicts may have changed since they were set
            check_argument(self.__fn_or_cls__, key, value, short_name(self.__fn_or_cls__))
        return super().__build__(*args, **kwargs)

    def __repr__(self) -> str:
        return config_text(self)

    __fn_or_cls__: Any
    __arguments__: dict[int | str, Any]


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Config(_Checked, Generic[T], fdl.Config[T]):  # type: ignore[misc]  # Fiddle has no types
    """A call of a function or class, to be made in the job.

    Every argument is checked against its annotation when it is set. Arguments may be configs
    themselves, at any depth, and templates or outputs of other tasks, which are filled in before
    the job is submitted.

    A subclass with annotated fields is a config of its own, without a function: in the job it is
    an object with those fields as attributes. Its method ``validate``, if it has one, is called
    whenever the config is validated::

        class Experiment(Config):
            model_name: str
            learning_rate: float = 1e-3

            def validate(self):
                if self.learning_rate <= 0:
                    raise ValueError("learning_rate must be positive")

    Args:
        fn_or_cls: The function or class; or its name, ``"pkg.mod:name"``, for one whose libraries are not
            here: it is then read from its source, and not imported.
        args: Its positional arguments.
        kwargs: Its named arguments.

    Raises:
        TargetNotImportableError: A job could not import it.
        UnknownParameterError: It has no such parameter.
        ParameterTypeError: A value does not fit its annotation.
    """

    __record__: ClassVar[Any] = None

    if TYPE_CHECKING:
        # What type checkers see; docs/configs.md, "In the editor", says what follows from it. mypy reads ``__init__``.
        # pyright reads ``__new__`` first: a class makes its own instance, so that its attributes complete; a function
        # makes a config, whose arguments it checks by ``__init__``. Its messages are about the last overload.

        @overload
        def __new__(cls, fn_or_cls: types.FunctionType | str, /, *args: Any, **kwargs: Any) -> Self: ...
        @overload
        def __new__(cls, fn_or_cls: type[T], /) -> T: ...  # type: ignore[misc]
        @overload
        def __new__(cls, fn_or_cls: _After3[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...  # type: ignore[misc]
        @overload
        def __new__(cls, fn_or_cls: _After2[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...  # type: ignore[misc]
        @overload
        def __new__(cls, fn_or_cls: _After1[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...  # type: ignore[misc]
        @overload
        def __new__(cls, fn_or_cls: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...  # type: ignore[misc]
        @overload
        def __new__(cls, **fields: Any) -> Self: ...
        def __new__(cls, *args: Any, **kwargs: Any) -> Any: ...  # type: ignore[misc]  # noqa: D102

        @overload
        def __init__(self, fn_or_cls: Callable[..., T], /) -> None: ...
        @overload
        def __init__(self, fn_or_cls: str, /, *args: Any, **kwargs: Any) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After3[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After2[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After1[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # type: ignore[misc]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not add_record(cls):
            return

        def init(self: Any, **values: Any) -> None:
            _Checked.__init__(self, type(self).__record__, **values)

        if "__init__" not in vars(cls):
            setattr(cls, "__init__", init)  # noqa: B010 - a class's own constructor, as dataclasses set it


class Partial(_Checked, Generic[T], fdl.Partial[T]):  # type: ignore[misc]  # Fiddle has no types
    """A function or class with some of its arguments: a callable once it is built.

    As an argument it is what fits ``Callable``. As what a job runs, it is called there without
    further arguments.

    Args:
        fn_or_cls: The function or class; or its name, ``"pkg.mod:name"``, for one whose libraries are not
            here: it is then read from its source, and not imported.
        args: Its positional arguments.
        kwargs: Its named arguments.

    Raises:
        TargetNotImportableError: A job could not import it.
        UnknownParameterError: It has no such parameter.
        ParameterTypeError: A value does not fit its annotation.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, fn_or_cls: Callable[..., T], /) -> None: ...
        @overload
        def __init__(self, fn_or_cls: str, /, *args: Any, **kwargs: Any) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After3[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After2[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: _After1[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        @overload
        def __init__(self, fn_or_cls: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
        def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # type: ignore[misc]


KINDS: Mapping[str, type] = {"config": Config, "partial": Partial, "arg_factory": fdl.ArgFactory}
"""Class of the config that a plan's node becomes, by the node's kind."""


def unchecked(
    target: Any,
    arguments: Mapping[Any, Any] | None = None,
    kind: type = Config,
    location: fiddle_history.Location | None = None,
) -> Any:
    """Returns a config whose arguments were not checked: the caller checks them, knowing their path.

    Args:
        target: The function or class.
        arguments: By name, or by position for those without one.
        kind: ``Config``, ``Partial`` or Fiddle's ``ArgFactory``.
        location: Who makes it, for its history; the calling code when None.
    """
    return blank(target, kind, location or find_caller()).fill(dict(arguments or {}))


def known_default(parameter: Parameter) -> Any:
    """Returns a parameter's default as a value that a config may hold, or ``NO_DEFAULT``.

    The result of a factory is known where the factory is a container or a dataclass; any other factory may return
    something else each time.
    """
    factory = parameter.factory
    if factory is None:
        return parameter.default
    if factory in _PLAIN_FACTORIES:
        return factory()
    return unchecked(factory) if isinstance(factory, type) and dataclasses.is_dataclass(factory) else NO_DEFAULT


_PLAIN_FACTORIES = (list, dict, set, tuple, frozenset)


class Blank:
    """A config without arguments, to make many of, in a microsecond each.

    Fiddle's own constructor reads the target anew for each, which takes some thirty.

    Args:
        target: The function or class.
        kind: ``Config``, ``Partial`` or Fiddle's ``ArgFactory``.
        location: Who makes the configs, for their history.
    """

    def __init__(self, target: Any, kind: type, location: fiddle_history.Location) -> None:
        empty: Any = object.__new__(kind)
        fdl.Buildable.__init__(empty, target)
        self._kind = kind
        self._state = empty.__dict__
        self._tags = empty.__argument_tags__
        self._history = {
            name: [dataclasses.replace(entry, location=location) for entry in entries]
            for name, entries in empty.__argument_history__.items()
        }

    def fill(self, arguments: dict[int | str, Any]) -> Any:
        """Returns a config with these arguments, unchanged and unchecked: the caller has checked them."""
        made: Any = object.__new__(self._kind)
        state = made.__dict__
        state.update(self._state)
        state["__arguments__"] = arguments
        state["__argument_history__"] = history = fiddle_history.History()
        for name, entries in self._history.items():
            history[name] = [*entries]
        state["__argument_tags__"] = tags = collections.defaultdict(set)
        for name in self._tags:
            tags[name] = set(self._tags[name])
        return made


_cached_blank = functools.lru_cache(maxsize=1024)(Blank)


def blank(target: Any, kind: type, location: fiddle_history.Location) -> Blank:
    """Returns the blank of a target's configs; the arguments are those of :class:`Blank`."""
    try:
        return _cached_blank(target, kind, location)
    except TypeError:  # a target that cannot be hashed
        return Blank(target, kind, location)


def positional(target: Any, position: int, count: int, path: str) -> tuple[Parameter, int | str]:
    """Returns the parameter of a positional argument, and the key under which a config has it.

    Args:
        target: The function or class.
        position: Which argument.
        count: How many there are.
        path: Path of the config.

    Raises:
        UnknownParameterError: The target does not take so many.
    """
    parameters = parameters_of(target)
    parameter = parameters.find(position)
    if parameter is None:
        message = f"{short_name(target)} does not take {count} positional arguments"
        raise UnknownParameterError(f"{message}; valid: {', '.join(parameters.names)}", path)
    named = parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    return parameter, parameter.name if named else position


def by_parameter(target: Any, arguments: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns named arguments by the names of the target's parameters, which may have others too.

    Raises:
        UnknownParameterError: Two names are of one parameter.
    """
    parameters = parameters_of(target)
    if not parameters.other_names:
        return dict(arguments)
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        own = parameters.name_of(name)
        if own in found:
            raise UnknownParameterError(f"{short_name(target)} is given {own!r} twice, also as {name!r}", path)
        found[own] = value
    return found


def check_name(target: Any, name: str, path: str) -> None:
    """Checks that a target takes an argument of that name.

    Raises:
        UnknownParameterError: It does not; the message has the nearest names.
    """
    parameters = parameters_of(target)
    if parameters.find(name) is None:
        message = f"{short_name(target)} has no parameter {name!r}{nearest(name, parameters.names)}"
        raise UnknownParameterError(message, path)
    if is_reserved(name):
        raise UnknownParameterError(
            f"a parameter of {short_name(target)} is named {name!r}, which plans reserve: rename it", path
        )


def check_argument(target: Any, key: int | str, value: Any, path: str) -> None:
    """Checks one argument of a target against its annotation.

    Args:
        target: The function or class.
        key: The argument's name, or position.
        value: The argument.
        path: Path of the config that has the argument.

    Raises:
        ParameterTypeError: It does not fit.
        TargetNotImportableError: It is a function that a job could not import.
    """
    parameter = parameters_of(target).find(key)
    if parameter is None:
        return
    misfit = checks.check(parameter.annotation, value)
    if misfit is not None:
        raise ParameterTypeError(misfit.message, path_below(join(path, key), misfit.keys))
    if isinstance(value, types.FunctionType):
        try:
            target_name(value)
        except TargetNotImportableError as error:
            raise TargetNotImportableError(error.message, join(path, key)) from None


def path_below(path: str, keys: tuple[Any, ...]) -> str:
    """Returns the path of what is under the keys."""
    for key in keys:
        path = join(path, key)
    return path


def _check_names(target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for name in kwargs:
        check_name(target, name, "")
    parameters = parameters_of(target)
    if args:
        positional(target, len(args) - 1, len(args), "")
    for position in range(len(args)):
        parameter = parameters.find(position)
        if parameter is not None and parameter.name in kwargs and parameter is parameters.find(parameter.name):
            message = f"{short_name(target)} is given {parameter.name!r} twice, by position and by name"
            raise UnknownParameterError(message)
