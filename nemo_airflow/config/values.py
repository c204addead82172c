"""Makes the values of changes: converts what an override, a file or a mapping gives to its place in a config."""

from __future__ import annotations

import collections.abc
import contextlib
import functools
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiddle as fdl

from nemo_airflow.config import checks, factories
from nemo_airflow.config.graph import is_dataclass_instance, iter_nodes
from nemo_airflow.config.leaves import fit_value
from nemo_airflow.config.origins import ChangeLocation, Origin, note_arguments
from nemo_airflow.config.parameters import parameters_of
from nemo_airflow.config.targets import target_name
from nemo_airflow.exceptions import ConfigError, OverrideError, ParameterTypeError, TargetNotImportableError
from nemo_airflow.language.overrides import nodes as nodes
from nemo_airflow.language.overrides.errors import OverrideSyntaxError
from nemo_airflow.language.overrides.syntax import parse_value
from nemo_airflow.language.plan.grammar import TARGET_KEYS, is_reserved, join
from nemo_airflow.registered import RECIPES, Registered, registered

_NODES = (nodes.Word, nodes.Quoted, nodes.Items, nodes.Pairs, nodes.Call, nodes.File)


class Values:
    """Makes the values of changes.

    Args:
        origin: Where the changes come from.
        root: The config that is changed; changes may name its own targets.
        location: Who makes the changes, for the history of new configs.
        reader: How plain values are read; one of the readers of :mod:`nemo_airflow.config.checks`.
    """

    def __init__(
        self, origin: Origin, root: Any, location: ChangeLocation | None = None, reader: Any = checks.read_value
    ) -> None:
        self._origin = origin
        self._root = root
        self._location = location
        self._reader = reader
        self._known: tuple[str, ...] | None = None
        self._made: dict[int, tuple[Any, Any]] = {}

    def read(self, annotation: Any, given: Any, path: str, beside: Sequence[Any] = ()) -> Any:
        """Returns a value converted to the annotation of its place.

        Args:
            annotation: The annotation.
            given: A node of the grammar of overrides, or a value.
            path: The place.
            beside: Functions and classes whose modules are searched for a factory without a module in its name.

        Raises:
            ParameterTypeError: It does not fit.
            ConfigError: A factory or a file in it cannot be used.
        """
        if isinstance(given, nodes.Word):
            if annotation in (Any, object):
                return nodes.literal(given.text)
            return fit_value(annotation, given.text, path, checks.read_text)
        if isinstance(given, nodes.Quoted):
            if checks.check(annotation, given.text) is None:
                return given.text
            return fit_value(annotation, given.text, path, checks.read_text)
        beside = (*_classes_in(annotation), *beside)
        try:
            return fit_value(annotation, self.make(given, path, beside), path, self._reader)
        except ParameterTypeError:
            # A form's field, or a value of a run's conf, at a place that only a factory fits.
            node = _parsed(given)
            if not isinstance(node, (nodes.Call, nodes.File)):
                raise
        return fit_value(annotation, self.make(node, path, beside), path, self._reader)

    def make(self, given: Any, path: str, beside: Sequence[Any] = ()) -> Any:
        """Returns a value with its factories, files and ``_target_`` mappings replaced by their values."""
        if isinstance(given, (nodes.Word, nodes.Quoted)):
            return nodes.value_of(given)
        if isinstance(given, nodes.Items):
            kinds: Mapping[str, Any] = {"list": list, "tuple": tuple, "set": set}
            return kinds[given.kind](self.make(item, join(path, i), beside) for i, item in enumerate(given.items))
        if isinstance(given, nodes.Pairs):
            pairs = {nodes.value_of(key): item for key, item in given.pairs}
            return self._mapping(pairs, path, beside)
        if isinstance(given, nodes.Call):
            return self._call(given, path, beside)
        if isinstance(given, nodes.File):
            return self.make(self._expanded(given, path), path, beside)
        if isinstance(given, dict):
            return self._once(given, path, beside)
        if type(given) in (list, tuple):
            items = [self.make(item, join(path, i), beside) for i, item in enumerate(given)]
            return given if _are_same(items, given) else type(given)(items)
        return given

    def file(self, file: nodes.File, path: str) -> Any:
        """Returns the content of a file as plain values.

        Raises:
            OverrideError: It cannot be read, or this origin may not read files.
        """
        from nemo_airflow.config.value_files import read_values

        folder = self._folder(file, path)
        try:
            return read_values(file.path, file.key, folder)
        except OverrideError as error:
            raise OverrideError(error.message, path) from error

    def _folder(self, file: nodes.File, path: str) -> Path:
        if self._origin.folder is None:
            raise OverrideError(self._origin.no_files(file.path), path)
        return self._origin.folder

    def _expanded(self, file: nodes.File, path: str) -> Any:
        from nemo_airflow.config.composition import expand_bases, open_file

        self._folder(file, path)
        with open_file(file, self._origin) as inside:
            return expand_bases(self.file(file, path), inside, path)

    @property
    def allow(self) -> tuple[str, ...]:
        """What may be imported: names that the origin permits, registered recipes, and the config's own targets."""
        if self._known is None:
            registered_targets = (entry.value for entry in self.recipes.values() if not entry.problem)
            self._known = (*_targets_in(self._root), *registered_targets)
        return (*self._origin.allow, *self._known)

    def grant_registered(self, name: str) -> bool:
        """Grants a target that is registered as a recipe under any name; returns whether it is."""
        dotted = name.replace(":", ".")
        found = next((e.value for e in self.recipes.values() if e.value.replace(":", ".") == dotted), None)
        if found is not None:
            self._origin.granted.names.add(found)
        return found is not None

    @functools.cached_property
    def recipes(self) -> dict[str, Registered]:
        """The registered recipes, by name."""
        return registered(RECIPES)

    def _once(self, given: dict[Any, Any], path: str, beside: Sequence[Any]) -> Any:
        """Makes the value of a mapping once, though it may be in several places, like that of a YAML anchor."""
        if id(given) not in self._made:
            self._made[id(given)] = (given, self._mapping(given, path, beside))
        return self._made[id(given)][1]

    def _mapping(self, given: Mapping[Any, Any], path: str, beside: Sequence[Any]) -> Any:
        reserved = [key for key in given if is_reserved(key)]
        if not reserved:
            made = {key: self.make(item, join(path, key), beside) for key, item in given.items()}
            return given if _are_same(made.values(), given.values()) else made
        if "_target_" not in given or "_recipe_" in given:
            return self._planned(given, path)
        if unknown := [key for key in reserved if key not in TARGET_KEYS or key == "_id_"]:
            raise OverrideError(f"{unknown[0]} cannot be used together with _target_", path)
        flags = {flag: _plain(given.get(flag, False)) for flag in ("_partial_", "_arg_factory_")}
        if any(not isinstance(value, bool) for value in flags.values()) or all(flags.values()):
            raise OverrideError(
                "_partial_ and _arg_factory_ must each be true or false, and only one of them true", path
            )
        kind = "partial" if flags["_partial_"] else "arg_factory" if flags["_arg_factory_"] else "config"
        named = {text_of(key, path): item for key, item in given.items() if key not in TARGET_KEYS}
        name = text_of(given["_target_"], path)
        return self._named(name, argument_nodes(given, path), named, path, beside, kind)

    def _planned(self, given: Mapping[Any, Any], path: str) -> Any:
        """Makes the values of a plan's tags, such as ``{_path_: /data}``, and recipes."""
        from nemo_airflow.config.plan import from_plan
        from nemo_airflow.config.yaml_text import plan_from_values

        plain = _plain(given)
        try:
            return from_plan(plan_from_values(plain), self.allow)
        except ConfigError as error:
            raise type(error)(error.message, factories.join_paths(path, error.path)) from error

    def _call(self, node: nodes.Call, path: str, beside: Sequence[Any]) -> Any:
        named = dict(node.kwargs)
        if ":" not in node.name and (entry := self.recipes.get(node.name)) is not None:
            return self._made_by_recipe(entry.config(node.args, named, self._argument, path))
        name = node.name
        if ":" not in name and "." not in name:
            name = factories.name_beside(name, beside, self.allow)
            if not name:
                raise OverrideError(factories.unknown_factory(node.name, self.recipes, beside, self.allow), path)
        return self._named(name, node.args, named, path, beside)

    def _named(
        self,
        name: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        path: str,
        beside: Sequence[Any],
        kind: str = "config",
    ) -> Any:
        is_recipe = self.grant_registered(name)
        target = factories.find_target(name, self.allow, path, beside)
        made = factories.call(target, args, kwargs, fit=self._argument, path=path, kind=kind, is_factory=is_recipe)
        return self._made_by_recipe(made) if is_recipe else self._noted(made)

    def _made_by_recipe(self, config: Any) -> Any:
        self._origin.granted.configs.append(config)
        return self._noted(config)

    def _noted(self, config: Any) -> Any:
        if self._location is not None:
            note_arguments(config, self._location)
        return config

    def _argument(self, annotation: Any, given: Any, path: str, target: Any) -> Any:
        return self.read(annotation, given, path, (target,))


def holds_code(node: Any) -> bool:
    """Returns whether a node, or a value, names a factory, a file or a target."""
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (nodes.Call, nodes.File)):
            return True
        if isinstance(value, nodes.Items):
            waiting += value.items
        elif isinstance(value, nodes.Pairs):
            if any(is_reserved(nodes.value_of(key)) for key, _ in value.pairs):
                return True
            waiting += [item for _, item in value.pairs]
    return False


def _are_same(new: Iterable[Any], old: Iterable[Any]) -> bool:
    return all(left is right for left, right in zip(new, old, strict=True))


def _parsed(given: Any) -> Any:
    if not isinstance(given, str):
        return None
    try:
        return parse_value(given)
    except OverrideSyntaxError:
        return None


def argument_nodes(given: Mapping[Any, Any], path: str) -> Sequence[Any]:
    """Returns the positional arguments of a mapping with a ``_target_``.

    Raises:
        OverrideError: They are not a list.
    """
    items = given.get("_args_", ())
    if isinstance(items, nodes.Items):
        return items.items
    if not isinstance(items, (list, tuple)):
        raise OverrideError("_args_ must be a list of positional arguments", path)
    return items


def text_of(value: Any, path: str) -> str:
    """Returns a text that has to be the name of a target or argument.

    Raises:
        OverrideError: It is not a text.
    """
    text = nodes.value_of(value) if isinstance(value, _NODES) else value
    if not isinstance(text, str):
        raise OverrideError(f"{text!r} is not the name of a target or an argument", path)
    return text


def _plain(value: Any) -> Any:
    """Returns nodes as plain values."""
    if isinstance(value, _NODES):
        return _plain(nodes.value_of(value))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _classes_in(annotation: Any) -> Iterator[type]:
    """Yields the user's classes in an annotation."""
    waiting = [annotation]
    while waiting:
        found = waiting.pop()
        if isinstance(found, type) and not typing.get_args(found):
            yield found
        waiting += typing.get_args(found)


def as_call(annotation: Any, value: Any) -> str:
    """Returns a hint for an error: how to write a mapping as the config of the annotated class."""
    if not isinstance(value, dict) or not value:
        return ""
    for kind in _classes_in(annotation):
        with contextlib.suppress(ConfigError):  # it has no signature
            if all(key in parameters_of(kind).names for key in value):
                return f"; write {kind.__name__}({', '.join(f'{key}=...' for key in value)})"
    return ""


def as_whole(annotation: Any, path: str, keys: Sequence[str | int], text: str) -> str:
    """Returns a hint for an error: how to write the whole value that contains another at these keys.

    Args:
        annotation: The annotation of the place.
        path: The place.
        keys: The keys below it, one at least.
        text: The value at their end, as it was written.

    Returns:
        The hint; empty where the annotation does not describe the values below the place.
    """
    whole = text
    wanted = [annotation]
    for key in keys[:-1]:
        wanted.append(_below(wanted[-1], key)[1])
    for kind, key in reversed(list(zip(wanted, keys, strict=True))):
        form, _ = _below(kind, key)
        if not form:
            return ""
        whole = form.format(key=key, value=whole)
    return f"; write {path}={whole}"


def _below(annotation: Any, key: str | int) -> tuple[str, Any]:
    """Returns how to write a value that has this key, and the annotation of the value at the key."""
    members = typing.get_args(annotation) if typing.get_origin(annotation) in checks.UNIONS else (annotation,)
    for member in members:
        kind = typing.get_origin(member) or member
        if not isinstance(kind, type):
            continue
        if issubclass(kind, dict | collections.abc.Mapping):
            return "{{{key}: {value}}}", checks.find_element(member, key, {})
        with contextlib.suppress(ConfigError):  # it has no signature
            if kind.__module__ != "builtins" and isinstance(key, str) and key in (found := parameters_of(kind)).names:
                return f"{kind.__name__}({{key}}={{value}})", found.by_name[key].annotation
    return "", Any


def _targets_in(root: Any) -> Iterable[str]:
    names: dict[str, None] = {}
    for _, value, _ in iter_nodes(root):
        if isinstance(value, fdl.Buildable):
            target = value.__fn_or_cls__
        elif is_dataclass_instance(value):
            target = type(value)
        else:
            continue
        try:
            names[target_name(target)] = None
        except TargetNotImportableError:
            continue  # what a job could not import, a change cannot name
    return names
