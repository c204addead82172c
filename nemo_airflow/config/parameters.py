"""The parameters of a target: names, kinds, annotations and defaults, read once for each."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks
from nemo_airflow.config.hints import hints_of
from nemo_airflow.exceptions import ConfigError

NO_DEFAULT = inspect.Parameter.empty

_PLAIN_FACTORIES = (list, dict, set, tuple, frozenset)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        name: Its name.
        kind: As in :class:`inspect.Parameter`.
        annotation: Its resolved annotation, ``Any`` where there is none; its default fits.
        default: Its default, or ``NO_DEFAULT``.
        factory: What makes its default, for a field of a dataclass; else None.
    """

    name: str
    kind: inspect._ParameterKind
    annotation: Any
    default: Any = NO_DEFAULT
    factory: Any = None

    @property
    def is_variadic(self) -> bool:
        """Whether it is ``*args`` or ``**kwargs``."""
        return self.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @property
    def is_required(self) -> bool:
        """Whether the target cannot be called without it."""
        return self.default is NO_DEFAULT and self.factory is None and not self.is_variadic

    def known_default(self) -> Any:
        """Returns the default as a value that a config may hold, or ``NO_DEFAULT``.

        What a factory makes is known where the factory is a container or a dataclass; of any other
        it is not known whether it makes the same each time.
        """
        if self.factory is None:
            return self.default
        if self.factory in _PLAIN_FACTORIES:
            return self.factory()
        if isinstance(self.factory, type) and dataclasses.is_dataclass(self.factory):
            from nemo_airflow.config.buildable import unchecked

            return unchecked(self.factory)
        return NO_DEFAULT


@dataclasses.dataclass(frozen=True)
class Parameters:
    """All parameters of a target, in its order.

    Attributes:
        by_name: The parameters, the variadic ones among them.
    """

    by_name: Mapping[str, Parameter]

    def find(self, key: int | str) -> Parameter | None:
        """Returns the parameter that takes an argument of that name or position."""
        if isinstance(key, str):
            found = self.by_name.get(key)
            if found is not None and not found.is_variadic and found.kind is not inspect.Parameter.POSITIONAL_ONLY:
                return found
            return self._of_kind(inspect.Parameter.VAR_KEYWORD)
        listed = list(self.by_name.values())
        if key < len(listed) and listed[key].kind in _POSITIONAL:
            return listed[key]
        return self._of_kind(inspect.Parameter.VAR_POSITIONAL)

    @property
    def names(self) -> list[str]:
        """The names that may be given."""
        return [p.name for p in self.by_name.values() if not p.is_variadic and p.kind is not _POSITIONAL[0]]

    def _of_kind(self, kind: inspect._ParameterKind) -> Parameter | None:
        return next((parameter for parameter in self.by_name.values() if parameter.kind is kind), None)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def parameters_of(target: Any) -> Parameters:
    """Returns the parameters of a function or class.

    Raises:
        ConfigError: It has no signature, as some builtins have none.
    """
    try:
        return _cached_parameters(target)
    except TypeError:  # a target that cannot be hashed
        return _parameters(target)


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns what to add to a message about an unknown name: the nearest names, and the valid ones."""
    listed = list(names)
    close = difflib.get_close_matches(name, listed, n=3, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ";"
    return f"{hint} valid: {', '.join(listed) if listed else 'none'}"


def _parameters(target: Any) -> Parameters:
    try:
        # Fiddle's own reading, so that we agree with it on generic and builtin classes.
        signature = fdl.Config(target).__signature_info__.signature
    except ValueError as error:
        name = getattr(target, "__qualname__", repr(target))
        raise ConfigError(f"{name} has no signature to configure: call it in a function of your own") from error
    hints = hints_of(target)
    factories = _factories(target)
    found: dict[str, Parameter] = {}
    for name, parameter in signature.parameters.items():
        factory = factories.get(name)
        default = NO_DEFAULT if factory is not None else parameter.default
        annotation = _widened(hints.get(name, Any), default)
        found[name] = Parameter(name, parameter.kind, annotation, default, factory)
    return Parameters(found)


def _widened(annotation: Any, default: Any) -> Any:
    """Returns an annotation that the parameter's own default fits, as in ``x: int = None``."""
    if default is NO_DEFAULT or annotation is Any or type(default) is annotation:
        return annotation
    if checks.check(annotation, default) is None:
        return annotation
    kind = type(default)
    return typing.Optional[annotation] if default is None else typing.Union[annotation, kind]  # noqa: UP007, UP045


_cached_parameters = functools.lru_cache(maxsize=4096)(_parameters)


def _factories(target: Any) -> dict[str, Any]:
    if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
        return {}
    missing = dataclasses.MISSING
    return {f.name: f.default_factory for f in dataclasses.fields(target) if f.default_factory is not missing}
