"""A plan or a config as one graph of plain nodes, from which diffs, trees, flowcharts and generated code are made.

Reading a plan needs neither Fiddle nor the plan's targets.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.language.plan import grammar
from nemo_airflow.language.plan.contents import check
from nemo_airflow.language.plan.grammar import join

_FORMS = {"_tuple_": "tuple", "_set_": "set", "_frozenset_": "frozenset", "list": "list"}

CONTAINERS = frozenset(("list", "tuple", "set", "frozenset", "dict"))

_SHORT = 72


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
    """

    form: str
    path: str
    target: str = ""
    value: Any = None
    edges: list[tuple[Any, Node]] = dataclasses.field(default_factory=list)
    places: list[str] = dataclasses.field(default_factory=list)

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
    return _PlanReader().read(plan["root"])


def of_config(config: Any) -> Node:
    """Returns the root of a config's graph, with the values that are set and no defaults.

    Raises:
        ConfigError: It cannot be written as a plan; the path is in the error.
    """
    from nemo_airflow.config.plan import to_plan

    to_plan(config, check=False, defaults=False)
    return _ConfigReader().read(config, "")


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
    """Iterates over every node once, parents before children, depth first."""
    found: dict[int, Node] = {}

    def visit(node: Node) -> None:
        if id(node) not in found:
            found[id(node)] = node
            for _, child in node.edges:
                visit(child)

    visit(root)
    return iter(found.values())


def children_first(root: Node) -> list[Node]:
    """Returns every node once, children before parents."""
    order: list[Node] = []
    seen: set[int] = set()

    def visit(node: Node) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            for _, child in node.edges:
                visit(child)
            order.append(node)

    visit(root)
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
    """Returns the path under a key."""
    if isinstance(key, (str, int)) and not isinstance(key, bool):
        return join(path, key)
    return f"{path}[{value_text(key)}]"


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
    text = ""
    for piece in _pieces(node, length):
        text += piece
        if len(text) > length:
            break
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


def _pieces(node: Node, most: int) -> Iterator[str]:
    """Yields the text of a node piece by piece, with so many children at most: a huge node is not read to its end."""
    if node.form == "leaf":
        yield value_text(node.value)
        return
    yield format_opening(node)
    for number, (key, child) in enumerate(node.edges[:most]):
        if number:
            yield ", "
        if node.form == "dict":
            yield f"{value_text(key)}: "
        elif isinstance(key, str):
            yield f"{key}="
        yield from _pieces(child, most)
    yield format_closing(node)


class _PlanReader:
    """Makes nodes from a checked plan."""

    def __init__(self) -> None:
        self._defined: dict[str, Node] = {}
        self._later: list[tuple[list[tuple[Any, Node]], int, str, str]] = []

    def read(self, root: Any) -> Node:
        found: list[tuple[Any, Node]] = []
        self._add(root, found, "", "")
        for siblings, index, name, path in self._later:
            node = self._defined[name]
            siblings[index] = (siblings[index][0], node)
            node.places.append(path)
        return found[0][1]

    def _add(self, data: Any, siblings: list[tuple[Any, Node]], key: Any, path: str) -> None:
        kind = grammar.kind_of(data)
        name = None
        if kind == "shared":
            name, data = data["_id_"], data["_value_"]
            kind = grammar.kind_of(data)
        if kind == "same":
            # Its definition may come later in the order of the keys.
            self._later.append((siblings, len(siblings), data["_same_"], path))
            siblings.append((key, Node("leaf", path)))
            return
        node = _node(data, kind, path)
        node.places.append(path)
        siblings.append((key, node))
        name = data.get("_id_", name) if kind == "target" else name
        if name is not None:
            self._defined[name] = node
        for inner, child in _below(data, kind):
            self._add(child, node.edges, inner, join_key(path, inner))


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


class _ConfigReader:
    """Makes nodes from a config that can be written as a plan."""

    def __init__(self) -> None:
        self._known: dict[int, Node] = {}

    def read(self, value: Any, path: str) -> Node:
        from nemo_airflow.config.types import graph

        shareable = graph.is_shareable(value)
        if shareable and id(value) in self._known:
            self._known[id(value)].places.append(path)
            return self._known[id(value)]
        pairs = graph.children(value)
        node = Node("leaf", path, value=_leaf(value)) if pairs is None else _config_node(value, path)
        node.places.append(path)
        if shareable:
            self._known[id(value)] = node
        if overrides := graph.recipe_overrides(value):
            pairs = [*(pairs or ()), *_recipe_edge(value.__arguments__, overrides)]
        for key, child in pairs or ():
            name = _leaf(key) if isinstance(value, dict) else key
            node.edges.append((name, self.read(child, join_key(path, name))))
        return node


def _leaf(value: Any) -> Any:
    from nemo_airflow.config.plan import to_plan

    return to_plan(value, check=False, defaults=False)["root"]


def _config_node(value: Any, path: str) -> Node:
    import fiddle as fdl

    from nemo_airflow.config.types import graph
    from nemo_airflow.language.names import target_name

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
        return Node(form, path, target=target_name(type(value) if of_class else value.__fn_or_cls__))
    if graph.is_dataclass_instance(value) or graph.is_named_tuple(value):
        return Node("instance", path, target=target_name(type(value)))
    return Node("dict" if isinstance(value, dict) else type(value).__name__, path)
