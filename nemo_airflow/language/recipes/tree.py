"""A resolved config, of the objects of :mod:`nemo_airflow.language.configs`: built, and written as a plan."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Dict, List, Optional, Set, Tuple

from nemo_airflow.language import configs
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.names import RECORD, name_of
from nemo_airflow.language.plan.build import Builder, make_container
from nemo_airflow.language.plan.grammar import Path, is_reserved, path_text
from nemo_airflow.language.plan.parts import plan_of
from nemo_airflow.language.texts import ADDRESS, short_name

_LONGEST_TEXT = 1_000

_SEQUENCES = {"tuple": "_tuple_", "set": "_set_", "frozenset": "_frozenset_"}

Combine = Callable[[Any, Sequence[Any], Path], Any]


def build(root: Any) -> Any:
    """Builds a config with all configs below it, each once.

    Raises:
        PlanError: A value contains itself, or an argument factory is not an argument of a partial.
    """
    builder = Builder(())

    def make(value: Any, below: Sequence[Any], path: Path) -> Any:
        if isinstance(value, Artifact):
            return builder.artifact(value)
        if not isinstance(value, configs.Config):
            return make_container(rebuild(value, below), below)
        arguments = {key: new for (key, _), new in zip(configs.ordered(value), below)}
        made = configs.unchecked(value.kind, value.__fn_or_cls__, arguments)
        return builder.call(value.kind, value.__fn_or_cls__, configs.positional(made), configs.named(made), path)

    return bottom_up(root, make)


def children(value: Any) -> Optional[List[Tuple[Any, Any]]]:
    """Returns the keys and values below a config or a container, None for a leaf."""
    if isinstance(value, configs.Config):
        return list(configs.ordered(value))
    kind = type(value)
    if kind is dict:
        return list(value.items())
    if kind in (list, tuple):
        return list(enumerate(value))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return list(zip(kind._fields, value))
    if kind in (set, frozenset):
        return list(enumerate(sorted(value, key=lambda item: (type(item).__name__, repr(item)))))
    return None


def rebuild(value: Any, below: Sequence[Any]) -> Any:
    """Returns a container with other values; the same container where none has changed."""
    pairs = children(value)
    if pairs is None or all(new is old for new, (_, old) in zip(below, pairs)):
        return value
    if isinstance(value, dict):
        return dict(zip(value, below))
    if hasattr(type(value), "_fields"):
        return type(value)(*below)
    return type(value)(below)


def all_below(root: Any) -> Iterator[Any]:
    """Yields a value and all values below it, shared ones once."""
    seen: Set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        pairs = children(value)
        if pairs is None or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        stack.extend(child for _, child in pairs)


def bottom_up(root: Any, combine: Combine) -> Any:
    """Returns the result of combining the root with the results of the values below it; shared values once.

    Args:
        root: A config or any value.
        combine: Called with a value, the results of its children, and the path.

    Raises:
        PlanError: A value contains itself.
    """
    made: Dict[int, Any] = {}
    kept: List[Any] = []  # kept alive, since ids are reused
    open_: Set[int] = set()
    stack: List[Tuple[Any, Path, Optional[List[Tuple[Any, Any]]]]] = [(root, (), None)]
    while stack:
        value, path, below = stack.pop()
        if id(value) in made:
            continue
        if below is None:
            below = children(value) or []
            if id(value) in open_:
                raise PlanError("the value contains itself", path_text(path))
            if below:
                open_.add(id(value))
                stack.append((value, path, below))
                stack.extend((child, (path, key), None) for key, child in reversed(below))
                continue
        made[id(value)] = combine(value, [made[id(child)] for _, child in below], path)
        kept.append(value)
        open_.discard(id(value))
    return made[id(root)]


def record(root: Any) -> Tuple[Dict[str, Any], List[str]]:
    """Returns a config as a plan for people and the tracker, and the paths of values that a plan cannot hold.

    Such values, for example the type of a tensor, are in the plan as text.
    """
    writer = _Writer(root)
    return plan_of(writer.node()), writer.as_text


class _Writer:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._names: Dict[int, str] = {}
        self._shared = _in_several_places(root)
        self.as_text: List[str] = []

    def node(self) -> Any:
        nodes: Dict[int, Any] = {}

        def write(value: Any, below: Sequence[Any], path: Path) -> Any:
            node = nodes[id(value)] = self._node(value, below, path)
            return node

        root = bottom_up(self._root, write)
        return self._with_names(root, nodes)

    def _with_names(self, root: Any, nodes: Dict[int, Any]) -> Any:
        """Puts ``_id_`` on the first place of a shared value, in the plan's order, and ``_same_`` on the others."""
        shared = {id(nodes[key]) for key in self._shared if key in nodes}
        if not shared:
            return root
        holder = [root]
        stack: List[Tuple[Any, Any]] = [(holder, 0)]
        while stack:
            inside, key = stack.pop()
            node = inside[key]
            if not isinstance(node, (dict, list)):
                continue
            if id(node) in self._names:
                inside[key] = {"_same_": self._names[id(node)]}
                continue
            if id(node) in shared:
                name = self._names[id(node)] = str(len(self._names) + 1)
                if isinstance(node, dict) and "_target_" in node:
                    node["_id_"] = name
                else:
                    inside[key] = {"_id_": name, "_value_": node}
            keys = [key for key in node if key != "_id_"] if isinstance(node, dict) else range(len(node))
            stack.extend((node, key) for key in reversed(list(keys)))
        return holder[0]

    def _node(self, value: Any, below: Sequence[Any], path: Path) -> Any:
        if isinstance(value, configs.Config):
            return self._target(value, below, path)
        kind = type(value)
        if kind is list:
            return list(below)
        if kind is dict:
            if all(isinstance(key, str) and not is_reserved(key) for key in value):
                return dict(zip(value, below))
            return {"_dict_": [[self._leaf(key, path), node] for key, node in zip(value, below)]}
        if kind in (tuple, set, frozenset):
            return {_SEQUENCES[kind.__name__]: list(below)}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"_target_": name_of(kind) or "builtins:tuple", **dict(zip(kind._fields, below))}
        if dataclasses.is_dataclass(value) and not isinstance(value, (type, Artifact)) and name_of(kind):
            fields = [field for field in dataclasses.fields(value) if field.init]
            texts = {field.name: self._leaf(getattr(value, field.name), (path, field.name)) for field in fields}
            return {"_target_": name_of(kind), **texts}
        return self._leaf(value, path)

    def _target(self, config: configs.Config, below: Sequence[Any], path: Path) -> Dict[str, Any]:
        name = name_of(config.__fn_or_cls__)
        if name is None:
            self.as_text.append(path_text(path))
            name = "unknown:" + re.sub(r"\W", "_", short_name(config.__fn_or_cls__))
        node: Dict[str, Any] = {"_target_": name}
        if config.kind != "config":
            node["_partial_" if config.kind == "partial" else "_arg_factory_"] = True
        written = {key: child for (key, _), child in zip(configs.ordered(config), below)}
        by_position = configs.positional_keys(config)
        args = [written[key] for key in by_position]
        defaults: Dict[str, Any] = {}
        for position, (parameter, details) in enumerate(configs.parameters_of(config.__fn_or_cls__).items()):
            if position < len(by_position) or parameter in written or name == RECORD:
                continue
            default = _default(configs.default_of(config.__fn_or_cls__, parameter))
            if default is None:
                continue
            if details.kind is not inspect.Parameter.POSITIONAL_ONLY:
                defaults[parameter] = default[0]
            elif position == len(args):
                args.append(default[0])
        if args:
            node["_args_"] = args
        node.update(defaults)
        node.update((key, child) for key, child in written.items() if isinstance(key, str) and key not in by_position)
        return node

    def _leaf(self, value: Any, path: Path) -> Any:
        node = leaf(value)
        if node is not None:
            return node[0]
        self.as_text.append(path_text(path))
        return ADDRESS.sub("", repr(value))[:_LONGEST_TEXT]


def leaf(value: Any) -> Optional[Tuple[Any]]:
    """Returns the node of a value without children, as a tuple of one; None for a value that a plan cannot hold."""
    if isinstance(value, enum.Enum):
        owner = name_of(type(value))
        return (
            None
            if owner is None or value.name not in type(value).__members__
            else ({"_enum_": f"{owner}.{value.name}"},)
        )
    if value is None or type(value) in (bool, int, str):
        return (value,)
    if type(value) is float:
        if math.isfinite(value):
            return (value,)
        return ({"_float_": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"},)
    if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
        name = name_of(value)
        return None if name is None else ({"_ref_": name},)
    from nemo_airflow.language.plan.scalars import tag_value  # imported only where a config has such a value

    node = tag_value(value)
    return None if node is None else (node,)


def _default(default: Any) -> Optional[Tuple[Any]]:
    if default is inspect.Parameter.empty or isinstance(default, (type, types.FunctionType, types.BuiltinFunctionType)):
        return None
    if type(default) in (list, tuple, dict, set, frozenset):
        node, as_text = record(default)
        return None if as_text or "parts" in node else (node["root"],)
    return leaf(default)


def _in_several_places(root: Any) -> Set[int]:
    once: Set[int] = set()
    twice: Set[int] = set()
    stack = [root]
    while stack:
        value = stack.pop()
        if _is_shareable(value):
            if id(value) in once:
                twice.add(id(value))
                continue
            once.add(id(value))
        stack.extend(child for _, child in children(value) or ())
    return twice


def _is_shareable(value: Any) -> bool:
    if type(value) in (tuple, frozenset):  # its identity matters where it contains a list or a config
        return any(children(item) is not None for item in value)
    return isinstance(value, configs.Config) or type(value) in (list, dict, set)
