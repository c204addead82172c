"""``autoconvert``: turns a plain function that returns an object into one that returns its config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from nemo_airflow.config.objects.buildable import Config, Partial
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.language.recipes.autoconvert import AutoconvertError, convert


@overload
def autoconvert(function: Callable[..., Any], *, partial: bool = False) -> Callable[..., Any]: ...


@overload
def autoconvert(
    function: None = None, *, partial: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def autoconvert(function: Callable[..., Any] | None = None, *, partial: bool = False) -> Any:
    """Makes a function that returns an object into one that returns its config.

    A call of a class or function in it becomes a ``Config`` of that call, ``functools.partial`` a
    ``Partial``. What Python and its standard library offer is called at once, as are methods of
    objects: they compute values. Loops, conditions and comprehensions are unchanged. ::

        @autoconvert
        def small(width: int = 64) -> Trainer:
            return Trainer(model=Model(hidden=width * 2), lr=1e-3)

        small(32)  # Config(Trainer, model=Config(Model, hidden=64), lr=0.001)

    In a job, a :class:`Recipe` of such a function does not need nemo-airflow in the image.

    Args:
        function: A function written with ``def`` in a module; a decorator when None.
        partial: Whether the config is of a callable, to be called later: a ``Partial`` at the root.

    Raises:
        ConfigError: It is not a function written with ``def``.
    """
    if function is None:
        return lambda decorated: autoconvert(decorated, partial=partial)
    try:
        return convert(function, Config, Partial, partial)
    except AutoconvertError as error:
        raise ConfigError(str(error)) from None
