"""``Config`` and ``Partial`` where the job runs: for recipes, in an image that has no Fiddle.

The same classes as on Airflow's side, with what a factory of configs needs: arguments as attributes,
with their names checked. Types are checked when overrides are applied, and by the targets themselves.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Dict, List, Optional, Tuple, Type, Union

from nemo_airflow.language.config_classes import add_record
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.texts import dotted_name, short_name

Key = Union[int, str]

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Config:
    """A call to be made when the job's config is built.

    Args:
        fn_or_cls: The function or class.
        args: Its positional arguments.
        kwargs: Its named arguments.

    Raises:
        TypeError: It does not take these arguments; the message has the nearest names.
    """

    __kind__: ClassVar[str] = "config"
    __record__: ClassVar[Any] = None
    __fn_or_cls__: Any
    __arguments__: Dict[Key, Any]

    def __init__(self, fn_or_cls: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        object.__setattr__(self, "__fn_or_cls__", fn_or_cls)
        object.__setattr__(self, "__arguments__", {})
        self.__arguments__.update(keys_of(fn_or_cls, args))
        for name, value in kwargs.items():
            setattr(self, name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not add_record(cls):
            return

        def init(self: Any, **values: Any) -> None:
            Config.__init__(self, type(self).__record__, **values)

        if "__init__" not in vars(cls):
            setattr(cls, "__init__", init)  # noqa: B010 - a class's own constructor, as dataclasses set it

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":
            raise AttributeError(name)
        if name in self.__arguments__:
            return self.__arguments__[name]
        default = default_of(self.__fn_or_cls__, name)
        if default is inspect.Parameter.empty:
            raise AttributeError(
                f"{short_name(self.__fn_or_cls__)} has no value for {name!r}: it was not given and has no default"
            )
        return default

    def __setattr__(self, name: str, value: Any) -> None:
        check_name(self.__fn_or_cls__, name)
        self.__arguments__[name] = value

    def __delattr__(self, name: str) -> None:
        if name not in self.__arguments__:
            raise AttributeError(f"{short_name(self.__fn_or_cls__)} has no value for {name!r}: it was not given")
        del self.__arguments__[name]

    def __repr__(self) -> str:
        given = [f"{key}={value!r}" if isinstance(key, str) else repr(value) for key, value in ordered(self)]
        if self.__fn_or_cls__ is not self.__record__:
            given.insert(0, dotted_name(self.__fn_or_cls__))
        return f"{type(self).__name__}({', '.join(given)})"

    __hash__ = None  # type: ignore[assignment]  # it is mutable, and Fiddle's has none


class Partial(Config):
    """Builds a callable with some of its arguments."""

    __kind__ = "partial"


class ArgFactory(Config):
    """An argument of a partial that is created anew at each call."""

    __kind__ = "arg_factory"


KINDS: Mapping[str, Type[Config]] = {"config": Config, "partial": Partial, "arg_factory": ArgFactory}


def unchecked(kind: str, target: Any, arguments: Mapping[Key, Any]) -> Config:
    """Returns a config with arguments that were already checked."""
    config = object.__new__(KINDS[kind])
    object.__setattr__(config, "__fn_or_cls__", target)
    object.__setattr__(config, "__arguments__", dict(arguments))
    return config


def ordered(config: Config) -> Iterator[Tuple[Key, Any]]:
    """Yields the arguments in the order of the target's parameters, including ``*args``."""
    given = config.__arguments__
    names = list(parameters_of(config.__fn_or_cls__))
    star = star_of(config.__fn_or_cls__)

    def place(key: Key) -> Tuple[int, int]:
        if isinstance(key, int):
            return (key, 0) if star is None or key < star else (star, key)
        return (names.index(key) if key in names else len(names), 0)

    for key in sorted(given, key=place):
        yield key, given[key]


def positional_keys(config: Config) -> List[Key]:
    """Returns the keys of the call's positional arguments, in order.

    A parameter that has a name is given by position where a later argument has none.

    Args:
        config: A config, also one of Fiddle.

    Raises:
        TypeError: An argument before another one is missing.
    """
    given = config.__arguments__
    last = max((key for key in given if isinstance(key, int)), default=-1)
    keys: List[Key] = []
    for position, parameter in enumerate(parameters_of(config.__fn_or_cls__).values()):
        if position > last or parameter.kind in VARIADIC:
            break
        key: Key = position if position in given else parameter.name
        if key not in given:
            raise TypeError(
                f"{short_name(config.__fn_or_cls__)}: {parameter.name!r} is not set, but a later argument is given by "
                f"position: set {parameter.name!r} too"
            )
        keys.append(key)
    return keys + sorted(key for key in given if isinstance(key, int) and key >= len(keys))


def positional(config: Config) -> List[Any]:
    """Returns the call's positional arguments. Raises as :func:`positional_keys` does."""
    return [config.__arguments__[key] for key in positional_keys(config)]


def named(config: Config) -> Dict[str, Any]:
    """Returns the call's named arguments: all but :func:`positional`."""
    by_position = positional_keys(config)
    return {
        key: value for key, value in config.__arguments__.items() if isinstance(key, str) and key not in by_position
    }


def parameters_of(target: Any) -> Mapping[str, inspect.Parameter]:
    """Returns a target's parameters; a target without a signature accepts any name."""
    try:
        return _parameters(target)
    except TypeError:  # it cannot be hashed
        return _read_parameters(target)


def takes(target: Any, name: str) -> bool:
    """Returns whether a target takes an argument of that name."""
    parameters = parameters_of(target)
    found = parameters.get(name)
    if found is not None and found.kind not in (*VARIADIC, inspect.Parameter.POSITIONAL_ONLY):
        return True
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def names_of(target: Any) -> List[str]:
    """Returns the names of the arguments that a target takes."""
    unnamed = (*VARIADIC, inspect.Parameter.POSITIONAL_ONLY)
    return [parameter.name for parameter in parameters_of(target).values() if parameter.kind not in unnamed]


def check_name(target: Any, name: str) -> None:
    """Checks that a target takes an argument of that name.

    Raises:
        TypeError: It does not; the message has the nearest names.
    """
    if not takes(target, name):
        raise TypeError(f"{short_name(target)} has no parameter {name!r}{nearest(name, names_of(target))}")


def default_of(target: Any, name: str) -> Any:
    """Returns a parameter's default, ``inspect.Parameter.empty`` where there is none."""
    parameter = parameters_of(target).get(name)
    if parameter is None or parameter.kind in VARIADIC:
        return inspect.Parameter.empty
    if dataclasses.is_dataclass(target):
        factories = {field.name: field.default_factory for field in dataclasses.fields(target)}
        factory: Any = factories.get(name, dataclasses.MISSING)
        if factory is not dataclasses.MISSING:
            return factory()
    return parameter.default


def keys_of(target: Any, args: Tuple[Any, ...]) -> Dict[Key, Any]:
    """Returns positional arguments by their keys in a config; raises TypeError where a target takes fewer."""
    keyed: Dict[Key, Any] = {}
    parameters = list(parameters_of(target).values())
    star = star_of(target)
    for position, value in enumerate(args):
        parameter: Optional[inspect.Parameter] = parameters[position] if position < len(parameters) else None
        if star is not None and position >= star:
            keyed[position] = value
        elif parameter is not None and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            keyed[parameter.name] = value
        elif parameter is not None and parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            keyed[position] = value
        else:
            raise TypeError(f"{short_name(target)} does not take {len(args)} positional arguments")
    return keyed


def star_of(target: Any) -> Optional[int]:
    """Returns the position of a target's ``*args``, or None."""
    kinds = [parameter.kind for parameter in parameters_of(target).values()]
    return kinds.index(inspect.Parameter.VAR_POSITIONAL) if inspect.Parameter.VAR_POSITIONAL in kinds else None


def _read_parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(target).parameters
    except (ValueError, TypeError):  # some builtins have none
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


_parameters = functools.lru_cache(maxsize=4096)(_read_parameters)
