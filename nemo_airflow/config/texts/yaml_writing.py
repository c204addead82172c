"""Writes a plan as YAML. Deep levels are written in one line: they would be mostly indentation."""

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
        self._root = plan["root"]
        self._dotted = dotted
        self._quoted = quoted
        self._shared = check(plan).shared
        self._anchors: dict[str, str] = {}
        self._stream = io.StringIO()
        self._dumper: Any = yaml.SafeDumper(self._stream, allow_unicode=True, width=_WIDTH)

    def text(self) -> str:
        dumper = self._dumper
        dumper.open()
        dumper.emit(yaml.DocumentStartEvent(explicit=False))
        self._node(self._root, 0)
        dumper.emit(yaml.DocumentEndEvent(explicit=False))
        dumper.close()
        return self._stream.getvalue()

    def _node(self, node: Any, depth: int) -> None:
        """Writes a node; one frame for each list and mapping, of which a level of a config may have three."""
        anchor = None
        kind = grammar.kind_of(node)
        if kind == "same" or (kind in ("target", "shared") and "_id_" in node):
            name = node["_same_" if kind == "same" else "_id_"]
            if name in self._anchors:
                self._dumper.emit(yaml.AliasEvent(self._anchors[name]))
                return
            node = self._shared[name][0]
            node = node.get("_value_", node)
            kind = grammar.kind_of(node)
            if not isinstance(node, dict) or all(tag not in node for tag in _IMMUTABLE):  # equal values need no anchor
                anchor = self._anchors[name] = f"id{len(self._anchors) + 1:03}"
        if kind == "_float_" or not isinstance(node, (list, dict)):
            self._scalar(float(node[kind]) if kind == "_float_" else node)
            return
        in_line = depth >= _BLOCK_LEVELS
        if depth == _BLOCK_LEVELS:
            self._dumper.best_width = float("inf")
        if isinstance(node, list):
            self._dumper.emit(yaml.SequenceStartEvent(anchor, None, True, flow_style=in_line))
            for item in node:
                self._node(item, depth + 1)
            self._dumper.emit(yaml.SequenceEndEvent())
        else:
            self._dumper.emit(yaml.MappingStartEvent(anchor, None, True, flow_style=in_line))
            for key, item in node.items():
                if key != "_id_":
                    self._scalar(key)
                    self._node(self._dotted(item) if key in ("_target_", "_ref_") else item, depth + 1)
            self._dumper.emit(yaml.MappingEndEvent())
        if depth == _BLOCK_LEVELS:
            self._dumper.best_width = _WIDTH

    def _scalar(self, value: Any) -> None:
        dumper = self._dumper
        node = dumper.represent_data(value)
        style = self._quoted(value) if isinstance(value, str) else None
        plain = node.tag == dumper.resolve(yaml.ScalarNode, node.value, (True, False))
        other = node.tag == dumper.resolve(yaml.ScalarNode, node.value, (False, True))
        dumper.emit(yaml.ScalarEvent(None, node.tag, (plain, other), node.value, style=style))
