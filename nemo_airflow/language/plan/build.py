"""Builds a plan under an allow-list. See :mod:`nemo_airflow.language.plan.grammar`.

Only targets that the allow-list permits are imported, and all targets of a plan are checked
before the first is imported. Standard library only: this runs in the job.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Dict, Optional, Tuple

from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.names import resolve
from nemo_airflow.language.plan.contents import Contents, check, check_allowed
from nemo_airflow.language.plan.grammar import SCALARS, TARGET_KEYS, Path, children, kind_of, path_text


class Builder:
    """Turns nodes into values, each shared node once.

    Args:
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.
    """

    def __init__(self, allow: Iterable[str]) -> None:
        self._allow = tuple(allow)
        self._resolved: Dict[str, Any] = {}
        self._shared: Mapping[str, Tuple[Any, Path]] = {}
        self._built: Dict[str, Any] = {}
        self._given: Dict[str, Any] = {}
        """The artifacts of the plan, by their paths here."""

    def build(self, plan: Mapping[str, Any], contents: Optional[Contents] = None) -> Any:
        """Checks the plan and all its targets, then builds its root.

        Args:
            plan: The plan.
            contents: Its contents, if they were already checked.
        """
        if contents is None:
            contents = check(plan)
            check_allowed(contents.names, self._allow)
        self._shared = contents.shared
        return self._build(plan["root"], ())

    def call(self, kind: str, target: Any, args: Sequence[Any], kwargs: Dict[str, Any], path: Path) -> Any:
        """Makes the value of a target node.

        Args:
            kind: ``config``, ``partial`` or ``arg_factory``.
            target: What was imported.
            args: The built positional arguments.
            kwargs: The built named arguments, in a dict that the callee may keep.
            path: Where the node is.
        """
        if self._given:
            from nemo_airflow.language.plan.artifact_arguments import restore

            args, kwargs = restore(target, args, kwargs, self._given)
        if kind == "config":
            if any(isinstance(value, _Factory) for value in (*args, *kwargs.values())):
                raise PlanError("an argument factory may only be an argument of a partial", path_text(path))
            return target(*args, **kwargs)
        made = _partial(target, args, kwargs)
        return _Factory(made) if kind == "arg_factory" else made

    def artifact(self, given: Any) -> Any:
        """Makes the value of an artifact: its path here. A function whose annotation says so gets the artifact."""
        path = given.path()
        self._given[str(path)] = given
        return path

    imports_recipes = True
    """Whether the factories of recipes are imported; None is given to :meth:`recipe` where not."""

    def recipe(
        self,
        name: str,
        target: Any,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        overrides: Sequence[str],
        path: Path,
    ) -> Any:
        """Makes the value of a recipe's node; :mod:`nemo_airflow.language.recipes.resolve` does.

        Args:
            name: ``pkg.mod:name`` of the factory.
            target: The factory.
            args: The built positional arguments.
            kwargs: The built named arguments.
            overrides: Override texts for the factory's result.
            path: Where the node is.
        """
        raise PlanError(f"the recipe {name!r} was not resolved before building", path_text(path))

    def _build(self, node: Any, path: Path) -> Any:
        """Returns the value of a node; one frame for each level, since all of a plan's levels are open at once."""
        kind = kind_of(node)
        if kind == "value":
            return node
        if kind == "same":  # keys may have been sorted since the plan was made, so the definition may come last
            if node["_same_"] in self._built:
                return self._built[node["_same_"]]
            node, path = self._shared[node["_same_"]]
            kind = kind_of(node)
        name = node.get("_id_") if kind == "target" or kind == "shared" else None
        if name in self._built:
            return self._built[name]
        target = None
        if kind == "target" and (self.imports_recipes or "_recipe_" not in node):
            target = self._resolve(node["_target_"])
        below, keys = _below(node, kind)
        built = []
        for place, child in below.items() if isinstance(below, dict) else enumerate(below):
            if type(child) not in _LEAVES:
                key = place if keys is None else keys[place]
                below[place] = self._build(child, path if key is None else (*path, key))
                built.append(below[place])
        value = self._value(node, kind, target, below, built, path)
        if name is not None:
            self._built[name] = value
        return value

    def _value(self, node: Any, kind: str, target: Any, below: Any, built: Sequence[Any], path: Path) -> Any:
        """Returns a node's value from its children and the keys of those that were built."""
        if kind == "target":
            args = [below.pop(position) for position in range(len(node["_args_"]))] if "_args_" in node else []
            if "_recipe_" in node:
                return self.recipe(node["_target_"], target, args, below, node["_recipe_"]["overrides"], path)
            form = "partial" if "_partial_" in node else "arg_factory" if "_arg_factory_" in node else "config"
            return self.call(form, target, args, below, path)
        if kind == "list" or kind == "map":
            return make_container(below, built)
        if kind in SCALARS:
            value = SCALARS[kind](node[kind])
            return self.artifact(value) if kind == "_artifact_" else value
        if kind == "_ref_":
            return self._resolve(node[kind])
        if kind == "_enum_":
            return self._member(node[kind], path)
        if kind == "shared":
            return below[0]
        try:
            if kind == "_dict_":
                half = len(below) // 2
                return make_container(dict(zip(below[:half], below[half:])), built)
            return make_container({"_tuple_": tuple, "_set_": set, "_frozenset_": frozenset}[kind](below), built)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            raise PlanError(f"{error}: it cannot be a key of a dict or a member of a set", path_text(path)) from error

    def _member(self, name: str, path: Path) -> Any:
        class_name, _, member = name.rpartition(".")
        found = self._resolve(class_name)
        members = getattr(found, "__members__", {}) if isinstance(found, type) else {}
        if member not in members:
            raise PlanError(f"{class_name!r} is not an Enum with a member {member!r}", path_text(path))
        return members[member]

    def _resolve(self, name: str) -> Any:
        if name not in self._resolved:
            self._resolved[name] = resolve(name, self._allow)
        return self._resolved[name]


class _Factory:
    """An argument that is created anew at each call of its partial."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _FactoryPartial:
    """A partial with arguments that are created at each call."""

    def __init__(self, target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._target, self._args, self._kwargs = target, args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        ours = {name: _make(value) for name, value in self._kwargs.items() if name not in kwargs}
        return self._target(*(_make(value) for value in self._args), *args, **ours, **kwargs)


_LEAVES = frozenset((bool, int, float, str, type(None)))


def _below(node: Any, kind: str) -> Tuple[Any, Optional[Sequence[Any]]]:
    """Returns the children of a node in build order: a dict's keys before its values.

    Returns:
        A list, or a dict of the arguments of a target and of the values of a map; and their keys for the
        path, or None where those are the keys of the list or dict.
    """
    if kind == "target":
        if "_args_" in node:
            return dict(children(node, kind)), None
        named = dict(node)
        del named["_target_"]
        if not TARGET_KEYS.isdisjoint(named):
            named = dict(children(node, kind))
        return named, None
    if kind == "map":
        return dict(node), None
    if kind == "list":
        return list(node), None
    pairs = list(children(node, kind))
    if kind == "_dict_":
        pairs = pairs[::2] + pairs[1::2]
    return [child for _, child in pairs], [key for key, _ in pairs]


def _partial(target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[..., Any]:
    if any(isinstance(value, _Factory) for value in (*args, *kwargs.values())):
        return _FactoryPartial(target, args, kwargs)
    return functools.partial(target, *args, **kwargs)


def make_container(container: Any, below: Iterable[Any]) -> Any:
    """Returns a container, or a factory of it where an item is created anew at each call.

    Args:
        container: A list, tuple, dict or set that was built.
        below: Its items; plain values may be left out.
    """
    if any(isinstance(value, _Factory) for value in below):
        return _Factory(functools.partial(_remake, container))
    return container


def _make(value: Any) -> Any:
    return value.make() if isinstance(value, _Factory) else value


def _remake(container: Any) -> Any:
    if isinstance(container, dict):
        return {key: _make(item) for key, item in container.items()}
    return type(container)(map(_make, container))
