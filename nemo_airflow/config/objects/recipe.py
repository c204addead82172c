"""``Recipe``: a factory of configs that is called where its code lives, in the job."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, overload

import fiddle as fdl
from fiddle.history import Location

from nemo_airflow.config.objects.buildable import Config, T
from nemo_airflow.config.objects.origins import set_target
from nemo_airflow.config.source import SourceFunction, packages_in, target_from_source
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import ConfigError, OverrideError
from nemo_airflow.language.names import source_folder, target_name

P = ParamSpec("P")
_Overrides = Iterable[str] | Mapping[str, Any]


class Factory(SourceFunction):
    """The target of a recipe: a factory, and overrides for the config that it returns.

    Args:
        name: ``pkg.mod:name``.
        signature: The factory's parameters.
        doc: Its docstring.
        overrides: Override texts for the config that it returns; applied in the job.
        folder: The folder from which it was read, where one was given.
    """

    def __init__(
        self, name: str, signature: inspect.Signature, doc: str, overrides: tuple[str, ...] = (), folder: str = ""
    ) -> None:
        super().__init__(name, signature, doc, folder)
        self.overrides = overrides

    @property
    def is_read(self) -> bool:
        """Whether its source was read, rather than left to the job's image."""
        return self.__signature__ is not ANY_ARGUMENTS

    def with_override(self, text: str) -> Factory:
        """Returns the factory with one more override."""
        overrides = (*self.overrides, text)
        return Factory(self.__nemo_source__, self.__signature__, self.__doc__ or "", overrides, self.__nemo_folder__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Resolves the recipe in this process, importing its code, as a job does."""
        from nemo_airflow.language.recipes import resolve as recipe

        return recipe.build_here(self.__nemo_source__, args, kwargs, self.overrides)

    def _identity(self) -> Any:
        return super()._identity(), self.overrides

    __hash__ = SourceFunction.__hash__


class Recipe(Config[T]):
    """A config that a factory makes in the job, where its libraries are.

    The factory is a function of the shipped package. It returns a config (this project's ``Config``
    or ``Partial``, Fiddle's, or NeMo-Run's), which the job builds as if it had been given here; the
    resolved config comes back on the job's stream and is recorded. A function that returns another
    object is called, and its result used.

    Here the factory is only read: its parameters, their types and defaults, and its docstring come
    from its source, so that a wrong name or type fails at once, and the trigger form has its fields.

    Args:
        factory: ``pkg.mod:name`` of the factory, or the function itself.
        overrides: Override texts (``"optimizer.lr=3e-4"``), or values by path. Those of the factory's own
            parameters are set here; others are applied in the job to the config that it returned,
            typed by the annotations there.
        source: Folder of the code, also of factories that are named in overrides; Python's path, which in a DAG file
            has the DAG bundle, when None.
        in_image: Whether only the job's image has the code: nothing is read then, and names and types
            are checked in the job.
        arguments: The factory's arguments. A config among them is handed to the factory as a config.

    Raises:
        TargetNotImportableError: The source has no such factory.
        UnknownParameterError: It has no such parameter.
        ParameterTypeError: A value does not fit its annotation.
        OverrideError: An override cannot be read.
    """

    if TYPE_CHECKING:

        @overload
        def __init__(self, factory: Callable[..., Any], /, overrides: _Overrides = ()) -> None: ...
        @overload
        def __init__(
            self,
            factory: str,
            /,
            overrides: _Overrides = (),
            *,
            source: str | os.PathLike[str] | None = None,
            in_image: bool = False,
            **arguments: Any,
        ) -> None: ...
        @overload
        def __init__(
            self, factory: Callable[P, Any], /, overrides: _Overrides = (), *args: P.args, **arguments: P.kwargs
        ) -> None: ...

    def __init__(  # type: ignore[misc]
        self,
        factory: str | Callable[..., Any],
        /,
        overrides: _Overrides = (),
        *,
        source: str | os.PathLike[str] | None = None,
        in_image: bool = False,
        **arguments: Any,
    ) -> None:
        if isinstance(overrides, str):
            raise OverrideError(f"overrides={overrides!r} is a single text: give a list of overrides")
        super().__init__(_factory(factory, source, in_image=in_image), **arguments)
        if overrides:
            _apply(self, overrides)

    @property
    def __recipe_overrides__(self) -> list[str]:
        factory: Factory = self.__fn_or_cls__
        return list(factory.overrides)


def recipe_from(name: str, arguments: Mapping[Any, Any], overrides: Iterable[str]) -> Recipe[Any]:
    """Returns the recipe that a plan describes; its factory is not looked up.

    Args:
        name: ``pkg.mod:name`` of the factory.
        arguments: Its arguments.
        overrides: The override texts.
    """
    recipe: Any = object.__new__(Recipe)
    fdl.Buildable.__init__(recipe, Factory(name, ANY_ARGUMENTS, "", tuple(overrides)))
    recipe.__arguments__.update(arguments)
    return recipe  # type: ignore[no-any-return]


def takes(recipe: Any, key: Any) -> bool:
    """Returns whether a path begins with a parameter of the factory; otherwise it applies to the factory's result."""
    factory: Factory = recipe.__fn_or_cls__
    if not factory.is_read:  # an argument that is already set belongs to the factory
        return key in recipe.__arguments__
    return isinstance(key, str) and parameters_of(factory).find(key) is not None


def add_override(recipe: Any, text: str, location: Location) -> None:
    """Adds an override of the factory's result; the job applies it.

    Args:
        recipe: The recipe.
        text: The override.
        location: Who adds it, for the recipe's history.
    """
    set_target(recipe, recipe.__fn_or_cls__.with_override(text), location)


ANY_ARGUMENTS = inspect.Signature([inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)])


def _factory(factory: str | Callable[..., Any], source: str | os.PathLike[str] | None, *, in_image: bool) -> Factory:
    if not isinstance(factory, str):
        name = target_name(factory)
        return Factory(name, _signature(factory), inspect.getdoc(factory) or "")
    if in_image:
        if source is not None:
            raise ConfigError("in_image=True reads no source: leave out source=..., or in_image=True")
        from nemo_airflow.config.source.targets import check_target_name

        check_target_name(factory)
        return Factory(factory, ANY_ARGUMENTS, "")
    found = target_from_source(factory, os.fspath(source) if source is not None else None)
    return Factory(factory, inspect.signature(found), inspect.getdoc(found) or "", folder=source_folder(found))


def _signature(factory: Callable[..., Any]) -> inspect.Signature:
    """Returns a signature with resolved annotations, as a source's signature has."""
    parameters = parameters_of(factory)
    kept = inspect.signature(factory)
    changed = [
        parameter.replace(annotation=parameters.by_name[name].annotation)
        for name, parameter in kept.parameters.items()
        if name in parameters.by_name
    ]
    return kept.replace(parameters=changed, return_annotation=inspect.Signature.empty)


def _apply(recipe: Recipe[Any], overrides: Iterable[str] | Mapping[str, Any]) -> None:
    from nemo_airflow.config.changes.overrides import apply_overrides

    given = overrides if isinstance(overrides, Mapping) else list(overrides)
    factory = recipe.__fn_or_cls__
    packages = [factory.__module__.partition(".")[0]]
    if folder := source_folder(factory):
        packages += packages_in(folder)
    changed = apply_overrides(recipe, given, allow=[f"{package}." for package in packages])
    recipe.__arguments__.update(changed.__arguments__)
    recipe.__argument_history__.update(changed.__argument_history__)
    object.__setattr__(recipe, "__fn_or_cls__", changed.__fn_or_cls__)


__all__ = ["Factory", "Recipe", "add_override", "recipe_from", "takes"]
