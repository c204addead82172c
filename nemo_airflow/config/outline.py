"""A plan or a config as one graph of plain nodes, from which diffs, pictures and generated code are made.

Reading a plan needs neither Fiddle nor the plan's targets. Nothing here recurses.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import PlanError
from nemo_airflow.language.plan import grammar
from nemo_airflow.language.plan.contents import check
from nemo_airflow.language.plan.grammar import join

_FORMS = {"_tuple_": "tuple", "_set_": "set", "_frozenset_": "frozenset", "list": "list"}

CONTAINERS = frozenset(("list", "tuple", "set", "frozenset", "dict"))

_SHORT = 72

_LONGEST_PATH = 4_000
"""In characters. Whole paths would take room with the square of a config's depth."""


@dataclasses.dataclass(eq=False, slots=True)
class Node:
    """A config, a container or a value.

    Attributes:
        form: ``call``, ``partial``, ``arg_factory``, ``recipe``, ``instance`` (of a dataclass or named tuple),
            ``list``, ``tuple``, ``set``, ``frozenset``, ``dict`` or ``leaf``.
        path: Dotted path of the first place where it is.
        target: ``pkg.mod:name`` of the called target, or empty.
        value: A leaf as a plan writes it.
        edges: Child nodes by key: a parameter's name, a position, a dict's key as a plan writes it.
        places: Every path that leads to it directly; more than one where it is shared.
        source: The config from which it was made, if any.
        is_part: Whether its path begins with it, as that of a plan's part does.
    """

    form: str
    path: str
    target: str = ""
    value: Any = None
    edges: list[tuple[Any, Node]] = dataclasses.field(default_factory=list)
    places: list[str] = dataclasses.field(default_factory=list)
    source: Any = None
    is_part: bool = False

    @property
    def is_shared(self) -> bool:
        """Whether several places share it as one object."""
        return len(self.places) > 1 and self.form != "leaf"

    @property
    def is_config(self) -> bool:
        """Whether it is a call, now or later, or an instance."""
        return self.form in ("call", "partial", "arg_factory", "recipe", "instance")


def of_plan(plan: Mapping[str, Any]) -> Node:
    """Returns the root of a plan's graph.

    Raises:
        PlanError: The plan is not valid.
    """
    check(plan)
    return _PlanReader(plan).read()


def of_config(config: Any) -> Node:
    """Returns the root of a config's graph, with the values that are set and no defaults.

    Raises:
        ConfigError: It cannot be written as a plan; the path is in the error.
    """
    return _read_config(config)


def of(config_or_plan: Any) -> Node:
    """Returns the root of the graph of a plan, or of a config with its defaults."""
    if is_plan(config_or_plan):
        return of_plan(config_or_plan)
    from nemo_airflow.config.plan import to_plan

    return of_plan(to_plan(config_or_plan, check=False))


def is_plan(value: Any) -> bool:
    """Returns whether a value is a plan rather than a config."""
    return grammar.is_plan(value)


def iter_nodes(root: Node) -> Iterator[Node]:
    """Yields every node once, parents before children, depth first."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        stack.extend(child for _, child in reversed(node.edges))


def children_first(root: Node) -> list[Node]:
    """Returns every node once, children before parents."""
    order: list[Node] = []
    done: set[int] = set()
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, is_after = stack.pop()
        if is_after:
            order.append(node)
        elif id(node) not in done:
            done.add(id(node))
            stack.append((node, True))
            stack.extend((child, False) for _, child in reversed(node.edges) if id(child) not in done)
    return order


class Identities:
    """Gives equal numbers to equal graphs, also across two plans; sharing makes no difference."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self.of: dict[int, int] = {}

    def add(self, root: Node) -> None:
        """Numbers a graph's nodes; :attr:`of` has the number by the node's ``id``."""
        for node in children_first(root):
            below = tuple((key_text(key), self.of[id(child)]) for key, child in node.edges)
            if node.form in ("set", "frozenset"):
                below = tuple(sorted((("", number) for _, number in below), key=lambda pair: pair[1]))
            elif node.form not in ("list", "tuple"):
                below = tuple(sorted(below))
            written = canonical(node.value) if node.form == "leaf" else ""
            key = (node.form, node.target, written, below)
            self.of[id(node)] = self._numbers.setdefault(key, len(self._numbers))


def canonical(value: Any) -> str:
    """Returns a leaf as canonical JSON: ``1`` and ``1.0`` and ``true`` differ."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def key_text(key: Any) -> str:
    """Returns a key as a text that tells keys apart."""
    return key if isinstance(key, str) else canonical(key)


def join_key(path: str, key: Any) -> str:
    """Returns the path under a key; only its end where it has hundreds of keys."""
    if len(path) > _LONGEST_PATH:
        path = f"…{path[-_LONGEST_PATH // 2 :]}"
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return join(path, key)
    return f"{path}[{value_text(key)}]"


def place(path: str, key: Any, child: Node) -> str:
    """Returns the path of a node that is under a key."""
    return child.path if child.is_part else join_key(path, key)


def leaf_text(node: Node) -> str:
    """Returns a leaf as Python would write it, in one line."""
    return value_text(node.value)


def value_text(value: Any) -> str:
    """Returns a plan's node as Python would write it: ``'a'``, ``Color.RED``, ``Path('/x')``."""
    if not isinstance(value, Mapping):
        return f"[{', '.join(map(value_text, value))}]" if isinstance(value, list) else repr(value)
    if len(value) != 1:
        return canonical(value)
    ((tag, inner),) = value.items()
    if tag in ("_enum_", "_ref_"):
        return str(inner).rpartition(":")[2]
    if tag == "_float_":
        return str(inner)
    if tag == "_tuple_":
        return f"({', '.join(map(value_text, inner))}{',' if len(inner) == 1 else ''})"
    if tag in grammar.SCALARS:
        return f"{tag.strip('_').capitalize()}({inner!r})" if tag == "_path_" else f"{tag.strip('_')}({inner!r})"
    return canonical(value)


def short_target(target: str) -> str:
    """Returns the name of a target without its module."""
    return target.rpartition(":")[2]


def summary(node: Node, length: int = _SHORT) -> str:
    """Returns a node as one line of about that many characters at most."""
    text = _Summary(length).of(node)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def format_opening(node: Node) -> str:
    """Returns the text before a node's content: ``Net(``, ``Partial(Net, ``, ``[``."""
    name = short_target(node.target)
    return {
        "partial": f"Partial({name}, " if node.edges else f"Partial({name}",
        "arg_factory": f"ArgFactory({name}, " if node.edges else f"ArgFactory({name}",
        "list": "[",
        "tuple": "(",
        "set": "{" if node.edges else "set(",
        "frozenset": "frozenset({" if node.edges else "frozenset(",
        "dict": "{",
    }.get(node.form, f"{name}(")


def format_closing(node: Node) -> str:
    """Returns the text after a node's content."""
    if node.form == "tuple" and len(node.edges) == 1:
        return ",)"
    if node.form == "frozenset" and node.edges:
        return "})"
    return {"list": "]", "dict": "}", "set": "}" if node.edges else ")"}.get(node.form, ")")


class _Summary:
    """Writes the beginning of a node; stops at the limit, so that a huge node costs no more."""

    def __init__(self, length: int) -> None:
        self._length = length

    def of(self, root: Node) -> str:
        parts: list[str] = []
        written = 0
        stack: list[str | Node] = [root]
        while stack and written <= self._length:
            item = stack.pop()
            if isinstance(item, Node) and item.form != "leaf":
                inner: list[str | Node] = [format_opening(item)]
                for number, (key, child) in enumerate(item.edges[: self._length]):
                    if number:
                        inner.append(", ")
                    if item.form == "dict":
                        inner.append(f"{key_of_dict(key)}: ")
                    elif isinstance(key, str):
                        inner.append(f"{key}=")
                    inner.append(child)
                inner.append(format_closing(item))
                stack.extend(reversed(inner))
                continue
            text = item if isinstance(item, str) else leaf_text(item)
            parts.append(text)
            written += len(text)
        return "".join(parts)


def key_of_dict(key: Any) -> str:
    """Returns the key of a dict as Python would write it."""
    return value_text(key)


class _PlanReader:
    """Makes nodes from a checked plan."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._defined: dict[str, Node] = {}
        self._later: list[tuple[list[tuple[Any, Node]], int, str, str]] = []

    def read(self) -> Node:
        holder: list[tuple[Any, Node]] = []
        stack: list[tuple[Any, list[tuple[Any, Node]], Any, str]] = [(self._plan["root"], holder, "", "")]
        while stack:
            data, siblings, key, path = stack.pop()
            kind = grammar.kind_of(data)
            name = None
            is_part = kind == "part"
            while kind in ("part", "shared"):
                if kind == "part":
                    data, linked = grammar.part(self._plan, data)
                    path = grammar.path_text(linked)
                else:
                    name, data = data["_id_"], data["_value_"]
                kind = grammar.kind_of(data)
            if kind == "same":
                # Its definition may come later in the order of the keys.
                self._later.append((siblings, len(siblings), data["_same_"], path))
                siblings.append((key, Node("leaf", path)))
                continue
            node = _node(data, kind, path)
            node.is_part = is_part
            node.places.append(path)
            siblings.append((key, node))
            name = data.get("_id_", name) if kind == "target" else name
            if name is not None:
                self._defined[name] = node
            stack.extend((child, node.edges, key, join_key(path, key)) for key, child in reversed(_below(data, kind)))
        for siblings, index, name, path in self._later:
            node = self._defined[name]
            siblings[index] = (siblings[index][0], node)
            node.places.append(path)
        return holder[0][1]


def _node(data: Any, kind: str, path: str) -> Node:
    if kind == "target":
        flags = {"_recipe_": "recipe", "_partial_": "partial", "_arg_factory_": "arg_factory"}
        form = next((form for flag, form in flags.items() if flag in data), "call")
        return Node(form, path, target=data["_target_"])
    if kind in ("map", "_dict_"):
        return Node("dict", path)
    return Node(_FORMS[kind], path) if kind in _FORMS else Node("leaf", path, value=data)


def _below(data: Any, kind: str) -> list[tuple[Any, Any]]:
    if kind == "_dict_":
        return [(key, child) for key, child in data["_dict_"]]
    if kind == "target":
        return [*grammar.children(data, kind), *_recipe_edge(data, data.get("_recipe_", {}).get("overrides"))]
    if kind in ("map", "list") or kind in _FORMS:
        return list(grammar.children(data, kind))
    return []


def _recipe_edge(names: Any, overrides: Sequence[str] | None) -> list[tuple[str, Any]]:
    """Returns the overrides of a recipe as one more argument, renamed where the factory has such a parameter."""
    return [("_recipe_" if "overrides" in names else "overrides", list(overrides))] if overrides else []


def _read_config(config: Any) -> Node:
    import fiddle as fdl

    from nemo_airflow.config import graph
    from nemo_airflow.config.encoding import encode

    known: dict[int, Node] = {}
    holder: list[tuple[Any, Node]] = []
    above: set[int] = set()
    stack: list[tuple[Any, list[tuple[Any, Node]], Any, str]] = [(config, holder, "", "")]
    keep: list[Any] = []  # kept alive, since ids are reused
    while stack:
        value, siblings, key, path = stack.pop()
        if siblings is _UP:
            above.discard(key)
            continue
        if id(value) in above:
            raise PlanError("the value contains itself", path)
        shareable = graph.is_shareable(value)
        if shareable and id(value) in known:
            known[id(value)].places.append(path)
            siblings.append((key, known[id(value)]))
            continue
        pairs = graph.children(value)
        if pairs is not None and (overrides := graph.recipe_overrides(value)):
            pairs = [*pairs, *_recipe_edge(value.__arguments__, overrides)]
        keep.append(value)
        if pairs is None:
            node = Node("leaf", path, value=_leaf(encode, value, path), source=value)
        else:
            node = _config_node(value, path, fdl)
            if isinstance(value, dict):
                pairs = [(_leaf(encode, name, path), item) for name, item in pairs]
        node.places.append(path)
        siblings.append((key, node))
        if shareable:
            known[id(value)] = node
        if pairs:
            above.add(id(value))
            stack.append((None, _UP, id(value), ""))
        stack.extend((child, node.edges, name, join_key(path, name)) for name, child in reversed(list(pairs or ())))
    return holder[0][1]


_UP: list[tuple[Any, Node]] = []


def _leaf(encode: Any, value: Any, path: str) -> Any:
    from nemo_airflow.exceptions import ConfigError

    try:
        return encode(value, defaults=False)
    except ConfigError as error:
        raise type(error)(error.message, ".".join(filter(None, (path, error.path)))) from None


def _config_node(value: Any, path: str, fdl: Any) -> Node:
    from nemo_airflow.config import graph
    from nemo_airflow.config.targets import target_name

    if isinstance(value, fdl.Buildable):
        record = getattr(type(value), "__record__", None)
        of_class = record is not None and record is value.__fn_or_cls__
        if of_class:
            form = "instance"
        elif graph.recipe_overrides(value) is not None:
            form = "recipe"
        else:
            kinds = ((fdl.ArgFactory, "arg_factory"), (fdl.Partial, "partial"), (fdl.Buildable, "call"))
            form = next(form for kind, form in kinds if isinstance(value, kind))
        return Node(form, path, target=target_name(type(value) if of_class else value.__fn_or_cls__), source=value)
    if graph.is_dataclass_instance(value) or graph.is_named_tuple(value):
        return Node("instance", path, target=target_name(type(value)), source=value)
    form = "dict" if isinstance(value, dict) else next(kind.__name__ for kind in _KINDS if isinstance(value, kind))
    return Node(form, path, source=value)


_KINDS: Iterable[type] = (list, tuple, set, frozenset)
