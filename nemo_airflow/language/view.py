"""How the language sees configs: Fiddle's, and those that a job has of its own."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, Optional, Tuple


class View(abc.ABC):
    """Reads configs. The keys of one are the names of parameters, and positions of arguments without a name."""

    @abc.abstractmethod
    def is_config(self, value: Any) -> bool:
        """Returns whether a value is a config."""

    @abc.abstractmethod
    def kind(self, config: Any) -> str:
        """Returns ``config``, ``partial`` or ``arg_factory``."""

    def target(self, config: Any) -> Any:
        """Returns what a config calls."""
        return config.__fn_or_cls__

    def arguments(self, config: Any) -> Mapping[Any, Any]:
        """Returns the arguments that are set."""
        return config.__arguments__  # type: ignore[no-any-return]

    def overrides(self, config: Any) -> Optional[Sequence[str]]:
        """Returns the overrides for the result of a recipe's factory; None for a config that is no recipe."""
        return None

    @abc.abstractmethod
    def name(self, target: Any) -> str:
        """Returns the name of a function or class, ``pkg.mod:qual.name``.

        Raises:
            TargetNotImportableError: A job could not import it by a name.
        """

    @abc.abstractmethod
    def parameters(self, target: Any) -> Mapping[str, Any]:
        """Returns the parameters of a target by name, in its order; each has the ``kind`` of ``inspect.Parameter``."""

    @abc.abstractmethod
    def default(self, target: Any, name: str) -> Any:
        """Returns the default of a parameter, ``inspect.Parameter.empty`` where there is none that is known."""

    @abc.abstractmethod
    def children(self, value: Any) -> Optional[Sequence[Tuple[Any, Any]]]:
        """Returns the keys and values below a config or a container, or None for a leaf."""

    @abc.abstractmethod
    def rebuild(self, value: Any, values: Sequence[Any]) -> Any:
        """Returns a container with other values, in the order of :meth:`children`."""

    def is_built(self, value: Any) -> bool:
        """Returns whether a value is handed on as it is, with all below it, where a config is built."""
        return False

    def content(self, value: Any) -> Any:
        """Returns what a value stands for; most stand for themselves."""
        return value

    def is_deferred(self, value: Any) -> bool:
        """Returns whether something is yet to be rendered into a value."""
        return False
