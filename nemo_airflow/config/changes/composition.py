"""One config of several layers: code, named recipes, files, values and overrides; later ones win."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl

from nemo_airflow.config.changes import factories
from nemo_airflow.config.changes.apply import change_config, not_too_deep
from nemo_airflow.config.changes.merging import ABSENT, merge
from nemo_airflow.config.changes.value_files import as_file, read_values
from nemo_airflow.config.changes.values import Values
from nemo_airflow.config.objects.origins import Origin, find_caller
from nemo_airflow.config.objects.validation import validate
from nemo_airflow.config.plan.allow import extend_allow as allow_here
from nemo_airflow.config.types.graph import is_deferred, iter_nodes, join
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import ConfigError, OverrideError
from nemo_airflow.language.overrides.nodes import Call, File
from nemo_airflow.language.overrides.syntax import parse_value
from nemo_airflow.registered import RECIPES, describe_unknown, registered

_OPEN: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("open_layers", default=())
"""Files and recipes being read, the innermost last; used to detect one that is among its own bases."""


def compose(
    base: Any,
    *layers: Any,
    allow: Iterable[str] = (),
    folder: str | os.PathLike[str] | None = None,
    check: bool = True,
) -> Any:
    """Returns one config of several layers, each laid over those before it.

    A layer is

    - a ``Config``, ``Partial`` or ``Recipe``: of the same function, its arguments are laid over those that
      are there, else it takes their place. A ``Partial`` may be a template that later layers fill in; what
      comes out is of the kind of the last one.
    - a file, YAML, TOML or JSON. It may have ``_base_``, one or several files (relative to it) or named recipes
      that come before its own values, and ``overrides``, a list that comes after them.
    - the name of a recipe that an installed distribution registers, ``small`` or ``small(hidden=32)``; or
      ``pkg.mod:name``.
    - a mapping of values, nested or by dotted path; may have ``_base_`` and ``overrides`` as well.
    - a list of overrides.

    Args:
        base: The first layer.
        layers: The others.
        allow: What files and names may import besides registered recipes: exact names, or prefixes that end with a dot.
        folder: What the paths of files are relative to; the folder of the file that calls when None.
        check: Whether to validate the result. What has templates or outputs of other tasks is left to the
            operator, which fills them in.

    Returns:
        The config; no layer is changed.

    Raises:
        ConfigError: A layer is wrong; which one, and the path, are in the error.
    """
    called_at = find_caller()
    where = Path(folder) if folder is not None else Path(called_at.filename).parent
    allowed = allow_here(allow)
    composed: Any = ABSENT
    for number, layer in enumerate((base, *layers), 1):
        origin = Origin(f"layer {number}", allowed, where, called_at)
        with errors_in(f"layer {number}{_shown(layer)}"):
            composed = lay(composed, layer, origin)
    if not isinstance(composed, fdl.Buildable):
        raise ConfigError(f"the layers together are a {type(composed).__name__}, not a config: add a _target_")
    if check and not any(is_deferred(value) for _, value, _ in iter_nodes(composed)):
        validate(composed)
    return composed


@not_too_deep("")
def lay(root: Any, layer: Any, origin: Origin) -> Any:
    """Returns a config with one layer laid over it; the config itself is changed where that is possible.

    Args:
        root: The config, or :data:`~nemo_airflow.config.changes.merging.ABSENT` for a first layer.
        layer: As for :func:`compose`.
        origin: Where it comes from.
    """
    if isinstance(layer, os.PathLike):
        return apply_file(root, File(os.fspath(layer)), origin)
    if isinstance(layer, str):
        return _lay_named(root, layer, origin)
    if isinstance(layer, Mapping):
        return _lay_values(root, layer, origin, "values")
    if isinstance(layer, (list, tuple)) and all(isinstance(text, str) for text in layer):
        return change_config(_begun(root, "overrides"), layer, origin, LAYERS)
    if isinstance(layer, fdl.Buildable):
        return merge(root, factories.to_own_config(layer, "a layer"), origin, "a config", LAYERS)
    raise ConfigError(
        f"a layer is {type(layer).__name__}: give a config, a file, a name, a mapping of values or a list of overrides"
    )


def apply_file(root: Any, file: File, origin: Origin) -> Any:
    """Returns a config with the content of a file laid over it; see :func:`lay`."""
    with open_file(file, origin) as inside:
        values = read_values(file.path, file.key, origin.folder)
        if not isinstance(values, Mapping):
            raise OverrideError(
                f"{file.path} contains a {type(values).__name__}, but a layer has to be a mapping of values"
            )
        return _lay_values(root, values, inside, "the file's values")


@contextlib.contextmanager
def open_file(file: File, origin: Origin) -> Iterator[Origin]:
    """Yields the origin for the changes of a file while it is read; refuses a file that is already being read.

    Raises:
        ConfigError: The file is already being read, or this origin may not read files.
    """
    if origin.folder is None:
        raise OverrideError(origin.no_files(file.path))
    path = origin.folder / file.path
    with _once(f"{path.resolve()}:{file.key}".rstrip(":"), f"{file.path} is among its own bases"):
        yield dataclasses.replace(origin, name=_relative(path), folder=path.parent, code=None)


def expand_bases(values: Any, origin: Origin, path: str = "") -> Any:
    """Returns values with each mapping that has a ``_base_`` laid over that base."""
    if isinstance(values, Mapping):
        inner = {
            key: value if key == "_base_" else expand_bases(value, origin, join(path, key))
            for key, value in values.items()
        }
        if "_base_" not in inner:
            return inner if any(inner[key] is not values[key] for key in inner) else values
        return _lay_values(ABSENT, inner, origin, "values")
    if isinstance(values, list):
        items = [expand_bases(value, origin, join(path, index)) for index, value in enumerate(values)]
        return items if any(new is not old for new, old in zip(items, values, strict=True)) else values
    return values


def load_named(text: str, origin: Origin) -> Any:
    """Returns the config of a name: a registered recipe, or ``pkg.mod:name``; either may be called with arguments.

    Raises:
        ConfigError: There is none, or it is no config.
    """
    try:
        node = parse_value(text)
    except OverrideError as error:
        raise ConfigError(f"{text!r} is not the name of a recipe: {error.summary}") from None
    values = Values(origin, None, layers=LAYERS)
    name = node.name if isinstance(node, Call) else text
    entry = registered(RECIPES).get(name)
    if entry is None and ":" not in name and "." not in name:
        raise ConfigError(describe_unknown(name, registered(RECIPES), "recipe", RECIPES))
    if isinstance(node, Call):
        return factories.to_own_config(values.make(node, ""), text)
    if entry is not None:
        return entry.config()
    found = factories.find_value(name, values.allow)
    if isinstance(found, fdl.Buildable):
        return factories.to_own_config(found, name)
    return factories.call(found, (), {}, fit=factories.as_given, path="", is_factory=True)


def _lay_named(root: Any, text: str, origin: Origin) -> Any:
    name = text.strip()
    if (file := as_file(name)) is not None:
        return apply_file(root, file, origin)
    if "=" in name.partition("(")[0]:
        raise ConfigError(f"{text!r} is a single override: give a list of overrides as a layer")
    with _once(name, f"the recipe {name} is among its own bases"):
        return merge(root, load_named(name, origin), origin, f"the recipe {name}", LAYERS)


def _lay_values(root: Any, values: Mapping[Any, Any], origin: Origin, what: str) -> Any:
    others = dict(values)
    for layer in _bases(others.pop("_base_", ())):
        with errors_in(f"its base {layer}"):
            root = lay(root, layer, origin)
    overrides = others.pop("overrides", None) if _are_overrides(values, root) else None
    others = {key: expand_bases(value, origin, str(key)) for key, value in others.items()}
    if others or (root is ABSENT and overrides is None):
        root = merge(root, others, origin, what, LAYERS)
    return root if overrides is None else change_config(_begun(root, "overrides"), overrides, origin, LAYERS)


def _bases(given: Any) -> Sequence[str]:
    bases = [given] if isinstance(given, str) else given
    if not isinstance(bases, (list, tuple)) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"_base_ is {given!r}: write a file or the name of a recipe, or a list of them")
    return bases


def _are_overrides(values: Mapping[Any, Any], root: Any) -> bool:
    """Returns whether the key ``overrides`` is a list of overrides rather than a parameter of that name."""
    given = values.get("overrides")
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        return False
    return not (isinstance(root, fdl.Buildable) and "overrides" in parameters_of(root.__fn_or_cls__).by_name)


def _begun(root: Any, what: str) -> Any:
    if root is ABSENT:
        raise ConfigError(f"there is no config yet for {what} to change: begin with a config, a file or a recipe")
    return root


@contextlib.contextmanager
def _once(key: str, cycle: str) -> Iterator[None]:
    if key in _OPEN.get():
        raise ConfigError(f"{cycle}: {' -> '.join([*map(_relative, _OPEN.get()), _relative(key)])}")
    token = _OPEN.set((*_OPEN.get(), key))
    try:
        yield
    finally:
        _OPEN.reset(token)


@contextlib.contextmanager
def errors_in(layer: str) -> Iterator[None]:
    """Adds the layers to an error, the outermost first."""
    try:
        yield
    except ConfigError as error:
        line, *below = error.message.split("\n")
        start, mark, inner = line.rpartition(" (in ")
        line = f"{start} (in {layer}, {inner}" if mark and line.endswith(")") else f"{line} (in {layer})"
        raise type(error)("\n".join([line, *below]), error.path) from error


def _shown(layer: Any) -> str:
    if isinstance(layer, (str, os.PathLike)):
        return f", {os.fspath(layer)}"
    if isinstance(layer, fdl.Buildable):
        return f", a {type(layer).__name__}"
    return ", values" if isinstance(layer, Mapping) else ", overrides" if isinstance(layer, (list, tuple)) else ""


def _relative(path: str | os.PathLike[str]) -> str:
    text = os.fspath(path)
    if not os.path.isabs(text):
        return text
    nearer = os.path.relpath(text)
    return text if nearer.startswith("..") else nearer


class _Layers:
    def apply_file(self, root: Any, file: File, origin: Origin) -> Any:
        with errors_in(f"@{file.path}"):
            return apply_file(root, file, origin)

    def expand(self, file: File, origin: Origin, read: Callable[[], Any], path: str) -> Any:
        with open_file(file, origin) as inside:
            return expand_bases(read(), inside, path)


LAYERS = _Layers()
"""Lays the files that changes name."""
