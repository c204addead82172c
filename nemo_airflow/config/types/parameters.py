"""The parameters of a target: names, kinds, annotations and defaults, read once for each target."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping
from typing import Any

import fiddle as fdl
import typing_extensions

from nemo_airflow.config.types import checks
from nemo_airflow.config.types.annotations import UNPACK, substitute_variables, typed_dict_fields
from nemo_airflow.config.types.hints import hints_of
from nemo_airflow.config.types.models import ModelField, is_undefined, model_fields, other_names
from nemo_airflow.exceptions import ConfigError

NO_DEFAULT = inspect.Parameter.empty


class _SetByTheCode:
    """Marks a default that exists but is only known by running the code."""

    def __repr__(self) -> str:
        return "<set by the code>"

    def __call__(self) -> Any:
        raise TypeError("this default is set by the code in the job: it is not known here")


SET_BY_THE_CODE: Any = _SetByTheCode()
"""Default of a parameter that was read from a source, where its value is only known by running the code."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a target.

    Attributes:
        name: Its name.
        kind: As in :class:`inspect.Parameter`.
        annotation: Its resolved annotation, ``Any`` where there is none; its default fits.
        default: Its default, or ``NO_DEFAULT``.
        factory: The factory of its default, for a field of a dataclass; else None.
        is_optional: Whether it may be left out though it has no default, as keys of a TypedDict may.
    """

    name: str
    kind: inspect._ParameterKind
    annotation: Any
    default: Any = NO_DEFAULT
    factory: Any = None
    is_optional: bool = False

    @property
    def is_variadic(self) -> bool:
        """Whether it is ``*args`` or ``**kwargs``."""
        return self.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @property
    def is_required(self) -> bool:
        """Whether a call of the target has to give it."""
        has_default = self.default is not NO_DEFAULT or self.factory is not None
        return not (has_default or self.is_variadic or self.is_optional)


@dataclasses.dataclass(frozen=True)
class Parameters:
    """All parameters of a target, in its order.

    Attributes:
        by_name: The parameters, the variadic ones among them.
        other_names: Additional names of parameters, such as a pydantic field's own name beside its alias.
    """

    by_name: Mapping[str, Parameter]
    other_names: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def name_of(self, name: str) -> str:
        """Returns the parameter's name for an additional name; any other name unchanged."""
        return self.other_names.get(name, name)

    def find(self, key: int | str) -> Parameter | None:
        """Returns the parameter that takes an argument of that name or position."""
        if isinstance(key, str):
            found = self._named.get(self.name_of(key))
            return found if found is not None else self._of_kind(inspect.Parameter.VAR_KEYWORD)
        listed = list(self.by_name.values())
        if key < len(listed) and listed[key].kind in _POSITIONAL:
            return listed[key]
        return self._of_kind(inspect.Parameter.VAR_POSITIONAL)

    @property
    def names(self) -> list[str]:
        """The names that may be given."""
        return list(self._named)

    @functools.cached_property
    def fitting_types(self) -> Mapping[str, frozenset[type]]:
        """The types whose values always fit, by argument name: these need no check of the annotation."""
        return {name: checks.fitting_types(parameter.annotation) for name, parameter in self._named.items()}

    @functools.cached_property
    def _named(self) -> dict[str, Parameter]:
        return {p.name: p for p in self.by_name.values() if not p.is_variadic and p.kind is not _POSITIONAL[0]}

    def _of_kind(self, kind: inspect._ParameterKind) -> Parameter | None:
        return next((parameter for parameter in self.by_name.values() if parameter.kind is kind), None)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def parameters_of(target: Any) -> Parameters:
    """Returns the parameters of a function or class.

    Raises:
        ConfigError: It has no signature, like some builtins.
    """
    try:
        return _cached_parameters(target)
    except TypeError:  # a target that cannot be hashed
        return _parameters(target)


def _parameters(target: Any) -> Parameters:
    try:
        # Fiddle's own function, for the same result on generic and builtin classes.
        signature = fdl.Config(target).__signature_info__.signature
    except ValueError as error:
        name = getattr(target, "__qualname__", repr(target))
        raise ConfigError(
            f"{name} has no signature that Python can read: write a function that calls it, and configure that"
        ) from error
    hints = hints_of(target)
    factories, fields = _factories(target), model_fields(target)
    own = {typing.Self: target, typing_extensions.Self: target} if isinstance(target, type) else {}
    found: dict[str, Parameter] = {}
    for name, parameter in signature.parameters.items():
        field = fields.get(name, ModelField())
        hint = hints.get(name, Any) if field.annotation is None else field.annotation
        if parameter.kind is inspect.Parameter.VAR_KEYWORD and (named := _named(hint)) is not None:
            found.update(named)
            continue
        factory = SET_BY_THE_CODE if parameter.default is SET_BY_THE_CODE else factories.get(name, field.factory)
        default = NO_DEFAULT if factory is not None or is_undefined(parameter.default) else parameter.default
        annotation = _widened(substitute_variables(hint, own), default)
        found[name] = Parameter(name, parameter.kind, annotation, default, factory)
    others = {name: alias for name, alias in other_names(target).items() if alias in found and name not in found}
    return Parameters(found, others)


def _named(hint: Any) -> dict[str, Parameter] | None:
    """Returns the parameters of ``**kwargs: Unpack[SomeTypedDict]``."""
    if typing.get_origin(hint) not in UNPACK:
        return None
    (kind,) = typing.get_args(hint)
    if not typing_extensions.is_typeddict(typing.get_origin(kind) or kind):
        return None
    fields, extra = typed_dict_fields(kind)
    named = {
        name: Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation, is_optional=not required)
        for name, (annotation, required) in fields.items()
    }
    if extra is not None:
        named["kwargs"] = Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, extra)
    return named


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
