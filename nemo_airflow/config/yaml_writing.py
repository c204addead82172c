"""Writes a plan as YAML, event by event: nothing recurses, and deep levels are written in one line.

With a line for each level, thousands of levels would be mostly indentation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from nemo_airflow.language.plan import grammar
from nemo_airflow.language.plan.contents import check

_WIDTH = 120

_BLOCK_LEVELS = 60
"""Levels that have lines of their own."""

_IMMUTABLE = ("_tuple_", "_frozenset_")


def write(plan: Mapping[str, Any], dotted: Callable[[str], str], quoted: Callable[[str], str | None]) -> str:
    """Returns a plan as YAML; a shared value has an anchor at its first place.

    Args:
        plan: The plan.
        dotted: Writes the name of a target.
        quoted: Returns the YAML style for a text.

    Raises:
        PlanError: The plan is not valid.
    """
    return _Writer(plan, dotted, quoted).text()


class _Writer:
    def __init__(
        self, plan: Mapping[str, Any], dotted: Callable[[str], str], quoted: Callable[[str], str | None]
    ) -> None:
        self._plan = plan
        self._dotted = dotted
        self._quoted = quoted
        self._shared = check(plan).shared
        self._anchors: dict[str, str] = {}
        self._stream = io.StringIO()
        self._dumper: Any = yaml.SafeDumper(self._stream, allow_unicode=True, width=_WIDTH)
        # Ends of lists and mappings, and nodes with their depth, a name to anchor, and whether they are keys.
        self._stack: list[tuple[Any, int, str | None]] = []

    def text(self) -> str:
        dumper = self._dumper
        dumper.open()
        dumper.emit(yaml.DocumentStartEvent(explicit=False))
        self._stack.append((self._plan["root"], 0, None))
        while self._stack:
            node, depth, anchor = self._stack.pop()
            if isinstance(node, yaml.Event):
                dumper.emit(node)
                if depth == _BLOCK_LEVELS:
                    dumper.best_width = _WIDTH
            else:
                self._node(node, depth, anchor)
        dumper.emit(yaml.DocumentEndEvent(explicit=False))
        dumper.close()
        return self._stream.getvalue()

    def _node(self, node: Any, depth: int, anchor: str | None) -> None:
        kind = grammar.kind_of(node)
        if kind == "part":
            self._stack.append((grammar.part(self._plan, node)[0], depth, anchor))
        elif kind == "same" or (kind in ("target", "shared") and "_id_" in node and anchor is None):
            self._place(node["_same_" if kind == "same" else "_id_"], depth)
        elif isinstance(node, (list, dict)) and kind != "_float_":
            self._collection(node, depth, anchor)
        else:
            self._scalar(float(node[kind]) if kind == "_float_" else node)

    def _place(self, name: str, depth: int) -> None:
        """Writes a shared value at one of its places."""
        if name in self._anchors:
            self._dumper.emit(yaml.AliasEvent(self._anchors[name]))
            return
        node = self._shared[name][0]
        inner = node.get("_value_", node)
        if isinstance(inner, dict) and any(tag in inner for tag in _IMMUTABLE):
            self._stack.append((inner, depth, None))  # equal values need no anchor
            return
        self._anchors[name] = f"id{len(self._anchors) + 1:03}"
        self._stack.append((inner, depth, self._anchors[name]))

    def _collection(self, node: Any, depth: int, anchor: str | None) -> None:
        in_line = depth >= _BLOCK_LEVELS
        if depth == _BLOCK_LEVELS:
            self._dumper.best_width = float("inf")
        below: list[tuple[Any, int, str | None]] = []
        if isinstance(node, list):
            self._dumper.emit(yaml.SequenceStartEvent(anchor, None, True, flow_style=in_line))
            below = [(item, depth + 1, None) for item in node]
            end: yaml.Event = yaml.SequenceEndEvent()
        else:
            self._dumper.emit(yaml.MappingStartEvent(anchor, None, True, flow_style=in_line))
            for key, item in node.items():
                if key == "_id_":
                    continue
                shown = self._dotted(item) if key in ("_target_", "_ref_") else item
                below += [(key, depth + 1, None), (shown, depth + 1, None)]
            end = yaml.MappingEndEvent()
        self._stack.append((end, depth, None))
        self._stack.extend(reversed(below))

    def _scalar(self, value: Any) -> None:
        dumper = self._dumper
        node = dumper.represent_data(value)
        style = self._quoted(value) if isinstance(value, str) else None
        plain = node.tag == dumper.resolve(yaml.ScalarNode, node.value, (True, False))
        other = node.tag == dumper.resolve(yaml.ScalarNode, node.value, (False, True))
        dumper.emit(yaml.ScalarEvent(None, node.tag, (plain, other), node.value, style=style))
