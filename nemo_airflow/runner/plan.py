"""Builds a plan under an allow-list: the job's side of a config. See :mod:`nemo_airflow.runner.grammar`.

Only targets that the allow-list permits are imported, and all targets of a plan are checked
before the first is imported. Standard library only: this runs in the job.
"""

from __future__ import annotations

import functools
import importlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from nemo_airflow.runner.contents import Contents, check
from nemo_airflow.runner.grammar import SCALARS, TARGET_KEYS, Path, PlanError, children, kind_of, part, path_text
from nemo_airflow.runner.node_checks import check_name

ALWAYS_ALLOWED = ("nemo_airflow.runner.record:Record",)
"""Targets of this package that need no entry. Not the whole package: it can build plans under any allow-list."""

SCRIPT = "nemo_airflow.runner.script:run"
"""Runs a shell. Only who writes a task may: an override, or a file, would have it run anything."""


class TargetNotAllowed(PlanError):
    """A plan names a target that the allow-list does not permit; it was not imported."""


class TargetNotFound(ImportError):
    """An allowed target does not exist: the job has no such module, or the module no such name."""


def targets_in(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of everything that building the plan would import, sorted, each once; Enums by their class."""
    return tuple(sorted(check(plan).names))


def is_allowed(name: str, allow: Iterable[str]) -> bool:
    """Returns whether an allow-list permits a target, by its exact name or by a prefix."""
    dotted = name.replace(":", ".")
    return any(_matches(dotted, entry) for entry in (*allow, *ALWAYS_ALLOWED))


def check_entries(allow: Iterable[str]) -> Tuple[str, ...]:
    """Returns the entries of an allow-list.

    Raises:
        PlanError: One is neither a name nor a prefix.
    """
    entries: Tuple[Any, ...] = (allow,) if isinstance(allow, str) else tuple(allow)
    for entry in entries:
        is_prefix = isinstance(entry, str) and entry.endswith(".")
        parts = entry[:-1].split(".") if is_prefix else entry.replace(":", ".", 1).split(".") if entry else []
        if not all(part.isidentifier() for part in parts) or len(parts) < (1 if is_prefix else 2):
            raise PlanError(
                f"allow has {entry!r}, which is neither a name such as 'package.module:name' "
                "nor a prefix such as 'package.'"
            )
    return entries


def check_allowed(names: Mapping[str, Path], allow: Iterable[str]) -> None:
    """Checks every target of a plan against an allow-list.

    Args:
        names: The targets, with the first place of each, as :func:`nemo_airflow.runner.contents.check` finds them.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Raises:
        TargetNotAllowed: A target is not permitted.
        PlanError: An entry of the list is not valid.
    """
    allow = check_entries(allow)
    for name, path in names.items():
        if not is_allowed(name, allow):
            package = name.replace(":", ".").split(".")[0] + "."
            message = f"target {name!r} is not allowed here: add it, or its package as {package!r}, to allow"
            raise TargetNotAllowed(message, path_text(path))


def resolve(name: str, allow: Iterable[str]) -> Any:
    """Imports an allowed target.

    An object that a prefix permits must also be defined under a permitted name: a module may have imported
    anything, for example ``os.system``. An exact name permits its object.

    Raises:
        TargetNotAllowed: The allow-list does not permit it.
        TargetNotFound: It does not exist.
    """
    check_name(name)
    allow = tuple(allow)
    if not is_allowed(name, allow):
        raise TargetNotAllowed(f"target {name!r} is not allowed here: add it to allow")
    module_name, _, qualname = name.partition(":")
    found: Any = _import(module_name, name)
    for number, name_part in enumerate(qualname.split(".")):
        if number and not isinstance(found, type):
            raise TargetNotAllowed(
                f"target {name!r} goes through a {type(found).__name__}: only classes may hold a target"
            )
        try:
            found = getattr(found, name_part)
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
    """Builds the object that a plan describes.

    Args:
        plan: The plan.
        allow: Exact names (``pkg.mod:name`` or ``pkg.mod.name``), or prefixes that end with a dot.

    Returns:
        The result of the root's target, or a callable where the root is a partial.

    Raises:
        PlanError: The plan is not valid.
        TargetNotAllowed: A target is not permitted; nothing was imported.
        TargetNotFound: A target does not exist.
    """
    allow = tuple(allow)
    contents = check(plan)
    check_allowed(contents.names, allow)
    if contents.has_recipes:
        # All recipes are resolved first: a factory gets configs, not the objects that those build.
        return importlib.import_module("nemo_airflow.runner.recipe").build(plan, allow)[0]
    return Builder(allow).build(plan, contents)


def has_recipes(plan: Mapping[str, Any]) -> bool:
    """Returns whether a plan has recipes, whose factories are not called yet."""
    return check(plan).has_recipes


class Builder:
    """Turns nodes into values, each shared node once. Nothing here recurses: a plan may have any depth.

    Args:
        allow: The allow-list, as for :func:`build`.
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
        return self._root(plan)

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
            args, kwargs = importlib.import_module("nemo_airflow.runner.references").restore(
                target, args, kwargs, self._given
            )
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
        """Makes the value of a recipe's node; :mod:`nemo_airflow.runner.recipe` does.

        Args:
            name: ``pkg.mod:name`` of the factory.
            target: The factory.
            args: The built positional arguments.
            kwargs: The built named arguments.
            overrides: Override texts for the factory's result.
            path: Where the node is.
        """
        raise PlanError(f"the recipe {name!r} was not resolved before building", path_text(path))

    def _root(self, plan: Mapping[str, Any]) -> Any:
        values: List[Any] = []
        stack: List[Tuple[Any, Path, Optional[_Frame]]] = [(plan["root"], (), None)]
        while stack:
            node, path, opened = stack.pop()
            if opened is not None:
                kind, target, below = opened.kind, opened.target, opened.below
                start = len(values) - len(opened.holes)
                built = values[start:]
                for hole, value in zip(opened.holes, built):
                    below[hole] = value
                del values[start:]
            else:
                kind = kind_of(node)
                if kind == "value":
                    values.append(node)
                    continue
                if kind == "part":
                    stack.append((*part(plan, node), None))
                    continue
                if kind == "same" or ((kind == "target" or kind == "shared") and node.get("_id_") in self._built):
                    name = node["_same_" if kind == "same" else "_id_"]
                    if name in self._built:
                        values.append(self._built[name])
                    else:  # keys may have been sorted since the plan was made, so the definition may come last
                        stack.append((*self._shared[name], None))
                    continue
                target = None
                if kind == "target" and (self.imports_recipes or "_recipe_" not in node):
                    target = self._resolve(node["_target_"])
                below, keys = _below(node, kind)
                pairs = below.items() if isinstance(below, dict) else enumerate(below)
                holes = [hole for hole, child in pairs if type(child) not in _LEAVES]
                if holes:
                    stack.append((node, path, _Frame(kind, target, below, holes)))
                    for hole in reversed(holes):
                        key = hole if keys is None else keys[hole]
                        stack.append((below[hole], path if key is None else (path, key), None))
                    continue
                built = []
            value = self._value(node, kind, target, below, built, path)
            values.append(value)
            if (kind == "target" or kind == "shared") and "_id_" in node:
                self._built[node["_id_"]] = value
        return values[0]

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


class _Frame(NamedTuple):
    """A node whose children are built first.

    Attributes:
        kind: Its kind.
        target: Its target, or None.
        below: Its children, by key.
        holes: The keys of those children that are built and put back.
    """

    kind: str
    target: Any
    below: Any
    holes: Sequence[Any]


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


def _matches(dotted: str, entry: str) -> bool:
    return dotted.startswith(entry) if entry.endswith(".") else dotted == entry.replace(":", ".")


def _import(module_name: str, name: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Where an existing module cannot import another one, that module's own traceback is shown.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        message = (
            f"no module {error.name!r} for the config's target {name!r}: it is neither in the package nor installed"
        )
        raise TargetNotFound(message, name=error.name) from None
