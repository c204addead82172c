"""Writes a config as the nodes of a plan: those of a DAG, and in a job those that its recipes have become."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import math
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Dict, List, Optional, Tuple

from nemo_airflow.language.errors import ConfigError, PlanError, TargetNotImportableError
from nemo_airflow.language.plan.grammar import MAX_DEPTH, Path, is_reserved, path_text, too_deep
from nemo_airflow.language.record import Record
from nemo_airflow.language.texts import ADDRESS, short_name
from nemo_airflow.language.view import View

_FUNCTIONS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)

_LARGEST = 10**4000
"""Python's own reader of JSON refuses integers of more than 4,300 digits."""

_EXACT = (dict, list, set, frozenset, tuple)
"""Containers that a job gets as they are."""

_MOST_REPEATS = 200_000
"""Most nested tuples that are written repeatedly: tuples have no identity in a plan."""

_LONGEST_TEXT = 1_000


def write(root: Any, view: View, *, defaults: bool, as_text: Optional[List[str]] = None) -> Any:
    """Returns a config, or any value with configs in it, as a node.

    Args:
        root: The config.
        view: How configs are seen.
        defaults: Whether to write the defaults of parameters that are not set.
        as_text: Gets the paths of values that a plan cannot hold, which are then written as texts; such values are
            errors when None.

    Raises:
        PlanError: The config nests too deep or contains itself, or a plan cannot hold a value; with the path.
        TargetNotImportableError: A job could not import a function or class, with its path.
    """
    return _Writer(view, {}, defaults=defaults, as_text=as_text).root(root, ())


@dataclasses.dataclass
class _First:
    """Where a value was first written; it may be shared with other places.

    Attributes:
        value: The value, kept alive since ids are reused.
        inside: The node that has its node.
        key: The place in that.
        is_inline: Whether its node can have an ``_id_`` of its own.
        levels: How many levels there are below it; None while it is being written.
        others: The nodes at the other places.
    """

    value: Any
    inside: Any
    key: Any
    is_inline: bool
    levels: Optional[int] = None
    others: List[Dict[str, str]] = dataclasses.field(default_factory=list)


class _Writer:
    """Writes each value into the place that its parent keeps for it. Two frames for each level.

    Args:
        view: How configs are seen.
        layouts: Layouts of targets already seen, by their ``id``.
        defaults: Whether to write the defaults of parameters that are not set.
        as_text: Gets the paths of values written as text, or None.
    """

    def __init__(
        self, view: View, layouts: Dict[int, _Layout], *, defaults: bool, as_text: Optional[List[str]]
    ) -> None:
        self._view = view
        self._layouts = layouts
        self._defaults = defaults
        self._as_text = as_text
        self._first: Dict[int, _First] = {}
        self._deepest = 0
        """Most keys of a path in the value that is being written."""
        self._tuples: Dict[int, Any] = {}
        self._repeats = 0
        self._sets: List[List[Any]] = []

    def root(self, root: Any, path: Path) -> Any:
        """Returns the node of a value that is at a path."""
        holder: List[Any] = [None]
        self._write(root, holder, 0, path)
        self._name_shared()
        for nodes in self._sets:  # those in others come first
            nodes.sort(key=_canonical)
        return holder[0]

    def _write(self, value: Any, inside: Any, key: Any, path: Path) -> None:
        if len(path) > self._deepest:
            self._deepest = len(path)
            if self._deepest > MAX_DEPTH:
                raise too_deep(path)
        node = self._scalar(value, path)
        if node is not _NONE:
            inside[key] = node
            return
        is_config = self._view.is_config(value)
        if not is_config and (held := self._view.content(value)) is not value:
            self._write(held, inside, key, path)
            return
        is_inline = is_config or (dataclasses.is_dataclass(value) and not isinstance(value, type))
        first = None
        if is_inline or isinstance(value, (list, dict, set)):
            first = self._first.get(id(value))
            if first is not None:
                inside[key] = self._again(first, path)
                return
            first = self._first[id(value)] = _First(value, inside, key, is_inline)
        elif isinstance(value, tuple):
            self._count(value, path)
        above, self._deepest = self._deepest, len(path)
        if is_config:
            inside[key] = self._target(value, path)
        elif is_inline or (isinstance(value, tuple) and hasattr(type(value), "_fields")):
            inside[key] = self._instance(value, path)
        elif type(value) is dict:
            inside[key] = self._dict(value, path)
        else:
            inside[key] = self._items(value, path)
        if first is not None:
            first.levels = self._deepest - len(path)
        self._deepest = max(above, self._deepest)

    def _again(self, first: _First, path: Path) -> Dict[str, str]:
        """Returns the node of a value that was written before, and is shared."""
        if first.levels is None:
            raise PlanError("the value contains itself", path_text(path))
        if len(path) + first.levels > MAX_DEPTH:
            raise too_deep(path)
        self._deepest = max(self._deepest, len(path) + first.levels)
        first.others.append({"_same_": ""})
        return first.others[-1]

    def _count(self, value: Tuple[Any, ...], path: Path) -> None:
        if id(value) not in self._tuples:
            self._tuples[id(value)] = value
        elif any(isinstance(item, tuple) for item in value):
            self._repeats += 1
        if self._repeats > _MOST_REPEATS:
            raise PlanError(
                "too many shared tuples: a plan writes a tuple again at each place; use lists, which it shares",
                path_text(path),
            )

    def _name_shared(self) -> None:
        """Numbers shared values, in the order of the parameters."""
        shared = [first for first in self._first.values() if first.others]
        for number, first in enumerate(shared, 1):
            name = str(number)
            node = first.inside[first.key]
            if first.is_inline and isinstance(node, dict):
                node["_id_"] = name
            else:
                first.inside[first.key] = {"_id_": name, "_value_": node}
            for other in first.others:
                other["_same_"] = name

    def _refuse(self, error: ConfigError, value: Any) -> Any:
        """Returns the text of a value that a plan cannot hold; raises the error where that is not wanted."""
        if self._as_text is None:
            raise error
        self._as_text.append(error.path)
        return ADDRESS.sub("", repr(value))[:_LONGEST_TEXT]

    def _target(self, config: Any, path: Path) -> Dict[str, Any]:
        target = self._view.target(config)
        layout = self._layout(target, path)
        node: Dict[str, Any] = {"_target_": layout.name}
        overrides = self._view.overrides(config)
        kind = self._view.kind(config)
        if overrides is not None:
            node["_recipe_"] = {"overrides": [self._text(text, path) for text in overrides]}
        elif kind != "config":
            node["_partial_" if kind == "partial" else "_arg_factory_"] = True
        given = self._view.arguments(config)
        # A factory knows its own defaults, and a resolved recipe is recorded with all of them.
        # The record class of a job has none.
        is_whole = (self._defaults and overrides is None) or layout.is_record
        written = self._written_defaults(layout, given, path) if is_whole else {}
        keys = [key for key in layout.keys if key in given or key in written]
        keys += [key for key in given if key not in layout.keys]
        positional = layout.positional(given, keys, path)
        places: Dict[Any, Tuple[Any, Any]] = {}
        if positional:
            node["_args_"] = [None] * len(positional)
            places = {key: (node["_args_"], number) for number, key in enumerate(positional)}
        for key in keys:
            if key in places:
                continue
            if is_reserved(key):
                message = f"a parameter of {short_name(target)} has a name that is reserved in plans: rename it"
                self._refuse(PlanError(message, path_text((*path, key))), None)
                continue
            node[str(key)] = None
            places[key] = (node, str(key))
        for key in filter(places.__contains__, keys):
            holder, place = places[key]
            if key in written:
                holder[place] = written[key]
            else:
                self._write(given[key], holder, place, (*path, key))
        return node

    def _written_defaults(self, layout: _Layout, given: Mapping[Any, Any], path: Path) -> Dict[Any, Any]:
        """Returns the nodes of defaults for arguments that are not given, where a plan should and can hold them."""
        nodes: Dict[Any, Any] = {}
        for key, name in layout.keys.items():
            if key in given:
                continue
            node = layout.constants.get(key, _NONE)
            if node is _NONE and key not in layout.constants:
                node = self._default(self._view.default(layout.target, name), (*path, key))
                if not isinstance(node, (dict, list)):
                    layout.constants[key] = node
            if node is not _NONE:
                nodes[key] = node
        return nodes

    def _default(self, default: Any, path: Path) -> Any:
        """Returns the node of a parameter's default, or ``_NONE``."""
        if default is inspect.Parameter.empty or isinstance(default, _FUNCTIONS):
            return _NONE  # a job may have another version of a library, with its default elsewhere
        try:
            # Written separately: two parameters with the same default object do not share it.
            writer = _Writer(self._view, self._layouts, defaults=True, as_text=None)
            node = writer.root(default, path)
        except ConfigError:
            return _NONE
        self._deepest = max(self._deepest, writer._deepest)
        return node

    def _layout(self, target: Any, path: Path) -> _Layout:
        found = self._layouts.get(id(target))
        if found is None:
            made = self._named(target, target, path, lambda name: _Layout(self._view, target, name))
            if not isinstance(made, _Layout):
                return _Layout(self._view, target, "unknown:" + re.sub(r"\W", "_", short_name(target)))
            found = self._layouts[id(target)] = made
        return found

    def _named(self, target: Any, value: Any, path: Path, form: Callable[[str], Any]) -> Any:
        """Returns what is made of the name of a value's function or class; the value's text where it has none."""
        try:
            name = self._view.name(target)
        except TargetNotImportableError as error:
            return self._refuse(TargetNotImportableError(error.message, path_text(path)), value)
        return form(name)

    def _instance(self, value: Any, path: Path) -> Any:
        """Returns the node of an instance of a dataclass or named tuple: a call of its class with its fields."""
        kind: Any = type(value)
        fields = kind._fields if hasattr(kind, "_fields") else [f.name for f in dataclasses.fields(kind) if f.init]
        taken = set(getattr(kind, "__dataclass_fields__", ())).intersection(self._view.parameters(kind))
        if lost := sorted(taken.difference(fields)):
            message = f"an instance of {short_name(kind)} does not keep {lost[0]!r}, which its constructor takes"
            error = PlanError(f"{message}: write Config({short_name(kind)}, ...)", path_text(path))
            return self._refuse(error, value)
        node = self._named(kind, value, path, lambda name: {"_target_": name})
        for field in fields if isinstance(node, dict) else ():
            if is_reserved(field):
                message = f"a field of {short_name(kind)} has a name that is reserved in plans: rename it"
                self._refuse(PlanError(message, path_text((*path, field))), None)
            else:
                self._write(getattr(value, field), node, field, (*path, field))
        return node

    def _dict(self, value: Dict[Any, Any], path: Path) -> Dict[str, Any]:
        if all(isinstance(key, str) and not isinstance(key, enum.Enum) and not is_reserved(key) for key in value):
            node: Dict[str, Any] = {}
            for key, child in value.items():
                self._write(child, node, str(key), (*path, str(key)))
            return node
        pairs: List[List[Any]] = []
        for key, child in value.items():
            pairs.append([None, None])
            self._write(key, pairs[-1], 0, (*path, key))
            self._write(child, pairs[-1], 1, (*path, key))
        return {"_dict_": pairs}

    def _items(self, value: Any, path: Path) -> Any:
        if type(value) not in _EXACT:
            return self._refuse(PlanError(self._refusal(value), path_text(path)), value)
        is_set = isinstance(value, (set, frozenset))
        nodes: List[Any] = [None] * len(value)
        for number, item in enumerate(sorted(value, key=self._order) if is_set else value):
            self._write(item, nodes, number, (*path, number))
        if is_set:
            self._sets.append(nodes)
        return nodes if isinstance(value, list) else {f"_{type(value).__name__}_": nodes}

    def _order(self, member: Any) -> Tuple[str, str]:
        """Returns by what the members of a set are ordered, in the same way in every process."""
        text = repr(member)
        if ADDRESS.search(text):
            alone = _Writer(self._view, self._layouts, defaults=False, as_text=[]).root(member, ())
            text = ADDRESS.sub("", text) + _canonical(alone)
        return type(member).__name__, text

    def _scalar(self, value: Any, path: Path) -> Any:
        """Returns the node of a value without values below it, or ``_NONE``."""
        if value is None or value is True or value is False:
            return value
        if type(value) is int and -_LARGEST < value < _LARGEST:
            return value
        if isinstance(value, enum.Enum):
            return self._member(value, path)
        if isinstance(value, _EXACT):
            return _NONE
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int):
            if -_LARGEST < value < _LARGEST:
                return int(value)
            message = "an integer of more than 4,000 digits, which JSON readers refuse: pass it as a text"
            return self._refuse(PlanError(message, path_text(path)), "an integer of more than 4,000 digits")
        if isinstance(value, float):
            if math.isfinite(value):
                return float(value)
            return {"_float_": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
        if self._view.is_config(value):
            return _NONE
        if isinstance(value, _FUNCTIONS):
            return self._named(value, value, path, lambda name: {"_ref_": name})
        from nemo_airflow.language.plan.scalars import tag_value  # imported only where a config has such a value

        node = tag_value(value)
        return _NONE if node is None else node

    def _text(self, value: str, path: Path) -> Any:
        text = str(value)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                message = "the text is not valid Unicode: pass it as bytes"
                return self._refuse(PlanError(message, path_text(path)), text)
        return text

    def _member(self, value: enum.Enum, path: Path) -> Any:
        if value.name not in type(value).__members__:
            message = "a combination of flags has no name that a plan can hold: pass its members in a list"
            return self._refuse(PlanError(message, path_text(path)), value)
        return self._named(type(value), value, path, lambda name: {"_enum_": f"{name}.{value.name}"})

    def _refusal(self, value: Any) -> str:
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        if self._view.is_deferred(value):
            return f"this {name} was not rendered into a value: give the config to an operator"
        plain = next((each.__name__ for each in _EXACT if isinstance(value, each)), None)
        if plain is not None:
            message = f"a plan holds no {kind.__name__}, and the job would get a {plain}"
            return f"{message}: write {plain}(...), or Config({kind.__name__}, ...)"
        return f"a plan cannot hold a value of type {name}: use Config({kind.__name__}, ...), or plain values"


class _Layout:
    """How the arguments of a target are written.

    Args:
        view: How configs are seen.
        target: The target.
        name: Its name in a plan.
    """

    def __init__(self, view: View, target: Any, name: str) -> None:
        self.target = target  # alive, so that no other has its id
        self.name = name
        self.is_record = isinstance(target, type) and issubclass(target, Record)
        parameters = view.parameters(target)
        self._kinds = {name: parameter.kind for name, parameter in parameters.items()}
        kinds = list(self._kinds.values())
        self._star = kinds.index(_STAR) if _STAR in kinds else len(kinds)
        self.keys: Dict[Any, str] = {
            position if kind is _ONLY_BY_POSITION else name: name
            for position, (name, kind) in enumerate(self._kinds.items())
            if kind not in (_STAR, inspect.Parameter.VAR_KEYWORD)
        }
        """The parameters' names by the keys of their arguments."""
        self.constants: Dict[Any, Any] = {}
        """Cached nodes of defaults, reused between plans; ``_NONE`` for a default that a plan cannot hold."""

    def positional(self, given: Mapping[Any, Any], written: Sequence[Any], path: Path) -> List[Any]:
        """Returns the keys of the arguments that have to be positional, in order."""
        extra = sorted(key for key in given if isinstance(key, int) and key >= self._star)
        if not extra and _ONLY_BY_POSITION not in self._kinds.values():
            return []
        keys: List[Any] = []
        for position, (name, kind) in enumerate(list(self._kinds.items())[: self._star]):
            if kind is _ONLY_BY_POSITION:
                keys.append(position)
            elif extra and kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
                keys.append(name)
        keys += extra
        while keys and keys[-1] not in written:
            keys.pop()
        for key in keys:
            if key not in written:
                message = "it is not set, but a later positional argument is: set it too"
                raise PlanError(message, path_text((*path, key)))
        return keys


_STAR = inspect.Parameter.VAR_POSITIONAL
_ONLY_BY_POSITION = inspect.Parameter.POSITIONAL_ONLY


class _Nothing:
    pass


_NONE = _Nothing()


def _canonical(node: Any) -> str:
    return json.dumps(node, sort_keys=True, separators=(",", ":"))
