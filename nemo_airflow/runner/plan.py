"""Builds a plan under an allow-list: the job's side of a config. See :mod:`nemo_airflow.runner.grammar`.

Nothing is imported that the allow-list does not permit, and all targets of a plan are checked
before the first is imported. Standard library only: this runs in the job.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.runner.grammar import (
    MAX_DEPTH,
    SCALARS,
    TARGET_KEYS,
    Path,
    PlanError,
    check,
    check_name,
    kind_of,
    path_text,
    walk,
)

ALWAYS_ALLOWED = ("nemo_airflow.runner.record:Record", "nemo_airflow.runner.script:run")
"""Targets of our own that need no entry. Not all of this package: it can build plans, under any allow-list."""


class TargetNotAllowed(PlanError):
    """A plan names a target that the allow-list does not permit; it was not imported."""


class TargetNotFound(ImportError):
    """An allowed target is not there: no such module in the job, or no such name in it."""


def targets_in(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of everything that building the plan would import, sorted, each once; Enums by their class."""
    return tuple(sorted({name for name, _ in _named(plan)}))


def is_allowed(name: str, allow: Iterable[str]) -> bool:
    """Returns whether an allow-list permits a target, by its exact name or by a prefix."""
    dotted = name.replace(":", ".")
    return any(_matches(dotted, entry) for entry in (*allow, *ALWAYS_ALLOWED))


def check_allowed(plan: Mapping[str, Any], allow: Iterable[str]) -> None:
    """Checks every target of a plan against an allow-list.

    Args:
        plan: The plan.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Raises:
        TargetNotAllowed: A target is not permitted.
    """
    allow = tuple(allow)
    for name, path in _named(plan):
        if not is_allowed(name, allow):
            package = name.replace(":", ".").split(".")[0] + "."
            message = f"target {name!r} is not allowed here: add it, or its package as {package!r}, to allow"
            raise TargetNotAllowed(message, path_text(path))


def resolve(name: str, allow: Iterable[str]) -> Any:
    """Imports an allowed target.

    What a prefix permits must also be defined under a permitted name: a module may have imported
    anything, ``os.system`` for one. An exact name permits what it names.

    Raises:
        TargetNotAllowed: The allow-list does not permit it.
        TargetNotFound: It is not there.
    """
    check_name(name)
    allow = tuple(allow)
    if not is_allowed(name, allow):
        raise TargetNotAllowed(f"target {name!r} is not allowed here: add it to allow")
    module_name, _, qualname = name.partition(":")
    found: Any = _import(module_name, name)
    for number, part in enumerate(qualname.split(".")):
        if number and not isinstance(found, type):
            raise TargetNotAllowed(
                f"target {name!r} goes through a {type(found).__name__}: only classes may hold a target"
            )
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetNotFound(f"module {module_name!r} has no {qualname!r}, which the config names") from None
        if isinstance(found, types.ModuleType):
            raise TargetNotAllowed(
                f"target {name!r} goes through the module {found.__name__!r}: name that module before the colon"
            )
    dotted = name.replace(":", ".")
    exact = any(not entry.endswith(".") and _matches(dotted, entry) for entry in (*allow, *ALWAYS_ALLOWED))
    home = getattr(found, "__module__", None)
    if not exact and not (isinstance(home, str) and is_allowed(f"{home}:{qualname}", allow)):
        raise TargetNotAllowed(
            f"target {name!r} is from {home!r}, which is not allowed here: add {name!r} itself to allow"
        )
    return found


def build(plan: Mapping[str, Any], allow: Iterable[str] = ()) -> Any:
    """Builds what a plan describes.

    Args:
        plan: The plan.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Returns:
        The root: what its target returned, or a callable when it is a partial.

    Raises:
        PlanError: The plan is not valid.
        TargetNotAllowed: A target is not permitted; nothing was imported.
        TargetNotFound: A target is not there.
    """
    return Builder(allow).build(plan)


class Builder:
    """Turns nodes into values, each shared node once.

    Args:
        allow: The allow-list, as for :func:`build`.
    """

    def __init__(self, allow: Iterable[str]) -> None:
        self._allow = tuple(allow)
        self._resolved: dict[str, Any] = {}
        self._shared: dict[str, tuple[Any, Path]] = {}
        self._built: dict[str, Any] = {}

    def build(self, plan: Mapping[str, Any]) -> Any:
        """Checks the plan and all its targets, then builds its root."""
        check(plan)
        check_allowed(plan, self._allow)
        for node, kind, path in walk(plan):
            if kind in ("target", "shared") and "_id_" in node:
                self._shared[node["_id_"]] = (node, path)
        return self._node(plan["root"], (), 0)

    def call(self, kind: str, target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], path: Path) -> Any:
        """Makes the value of a target node.

        Args:
            kind: ``config``, ``partial`` or ``arg_factory``.
            target: What was imported.
            args: The built positional arguments.
            kwargs: The built named arguments.
            path: Where the node is.
        """
        if kind == "config":
            if any(_holds_factory(value) for value in (*args, *kwargs.values())):
                raise PlanError("an argument factory may only be an argument of a partial", path_text(path))
            return target(*args, **kwargs)
        factories = {name: _promote(value) for name, value in kwargs.items()}
        made = _partial(target, [_promote(value) for value in args], factories)
        return _Factory(made) if kind == "arg_factory" else made

    def _node(self, node: Any, path: Path, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise PlanError(f"nested deeper than {MAX_DEPTH} levels", path_text(path))
        kind = kind_of(node)
        if kind == "value":
            return node
        if kind == "same":
            name = node["_same_"]
            if name not in self._built:
                # Keys may have been sorted since the plan was made, so the first may come last.
                self._node(*self._shared[name], depth + 1)
            return self._built[name]
        name = node.get("_id_") if kind in ("target", "shared") else None
        if name is not None and name in self._built:
            return self._built[name]
        value = self._value(node, kind, path, depth)
        if name is not None:
            self._built[name] = value
        return value

    def _value(self, node: Any, kind: str, path: Path, depth: int) -> Any:
        if kind in SCALARS:
            return SCALARS[kind](node[kind])
        if kind == "_ref_":
            return self._resolve(node[kind])
        if kind == "_enum_":
            return self._member(node[kind], path)
        if kind == "shared":
            return self._node(node["_value_"], path, depth + 1)
        if kind == "map":
            return {key: self._node(child, (path, key), depth + 1) for key, child in node.items()}
        if kind == "target":
            target = self._resolve(node["_target_"])
            args = [self._node(child, (path, index), depth + 1) for index, child in enumerate(node.get("_args_", ()))]
            names = [key for key in node if key not in TARGET_KEYS]
            kwargs = {key: self._node(node[key], (path, key), depth + 1) for key in names}
            form = "partial" if "_partial_" in node else "arg_factory" if "_arg_factory_" in node else "config"
            return self.call(form, target, args, kwargs, path)
        below = node if kind == "list" else node[kind]
        try:
            if kind == "_dict_":
                keys = [self._node(key, (path, index), depth + 1) for index, (key, _) in enumerate(below)]
                return {key: self._node(child, (path, key), depth + 1) for key, (_, child) in zip(keys, below)}
            items = [self._node(child, (path, index), depth + 1) for index, child in enumerate(below)]
            return {"list": list, "_tuple_": tuple, "_set_": set, "_frozenset_": frozenset}[kind](items)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            raise PlanError(f"{error}: it can be no key of a dict and no member of a set", path_text(path)) from error

    def _member(self, name: str, path: Path) -> Any:
        class_name, _, member = name.rpartition(".")
        found = self._resolve(class_name)
        members = getattr(found, "__members__", {}) if isinstance(found, type) else {}
        if member not in members:
            raise PlanError(f"{class_name!r} is no Enum with a member {member!r}", path_text(path))
        return members[member]

    def _resolve(self, name: str) -> Any:
        if name not in self._resolved:
            self._resolved[name] = resolve(name, self._allow)
        return self._resolved[name]


class _Factory:
    """An argument that is made anew at each call of the partial that it belongs to."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _FactoryPartial:
    """A partial some of whose arguments are made at each call."""

    def __init__(self, target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ours = {name: _make(value) for name, value in self._kwargs.items() if name not in kwargs}
        return self._target(*(_make(value) for value in self._args), *args, **ours, **kwargs)


def _partial(target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    if any(isinstance(value, _Factory) for value in (*args, *kwargs.values())):
        return _FactoryPartial(target, args, kwargs)
    return functools.partial(target, *args, **kwargs)


def _holds_factory(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return any(map(_holds_factory, value.values() if isinstance(value, dict) else value))
    return isinstance(value, _Factory)


def _promote(value: Any) -> Any:
    holds = not isinstance(value, _Factory) and _holds_factory(value)
    return _Factory(functools.partial(_make, value)) if holds else value


def _make(value: Any) -> Any:
    if isinstance(value, _Factory):
        return value.make()
    if not _holds_factory(value):
        return value
    if isinstance(value, dict):
        return {key: _make(item) for key, item in value.items()}
    return type(value)(map(_make, value))


def _matches(dotted: str, entry: str) -> bool:
    return dotted.startswith(entry) if entry.endswith(".") else dotted == entry.replace(":", ".")


def _named(plan: Mapping[str, Any]) -> Iterator[tuple[str, Path]]:
    for node, kind, path in walk(plan):
        if kind == "target":
            yield node["_target_"], path
        elif kind == "_ref_":
            yield node[kind], path
        elif kind == "_enum_":  # by its class: which member it is decides nothing about what is imported
            yield node[kind].rpartition(".")[0], path


def _import(module_name: str, name: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there but cannot import another is that module's own traceback.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        message = (
            f"no module {error.name!r} for the config's target {name!r}: it is neither in the package nor installed"
        )
        raise TargetNotFound(message, name=error.name) from None
