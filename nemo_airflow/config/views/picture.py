"""A config as an indented tree, for terminals and pages, and as a Mermaid flowchart, which Markdown pages draw.

Both are plain texts; the same config gives the same text.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.config.views import outline
from nemo_airflow.config.views.outline import Node
from nemo_airflow.language.plan.grammar import join_paths

if TYPE_CHECKING:
    from nemo_airflow.config.views.differences import Change

MAX_LINES = 2_000
"""Most lines of a tree."""

MAX_BOXES = 120
"""Most boxes of a flowchart: Mermaid refuses large ones."""

MAX_ROWS = 28
"""Most values in a box."""

_STYLES = ("classDef added fill:#dcfce7,color:#1f2937", "classDef changed fill:#fef3c7,color:#1f2937")


@dataclasses.dataclass(frozen=True)
class TreeLine:
    """One line of a tree.

    Attributes:
        text: The key and the value, indented.
        change: The kind of its change, as of :class:`nemo_airflow.config.views.differences.Change`; empty for none.
    """

    text: str
    change: str = ""


def to_tree(config: Any) -> str:
    """Returns a config or a plan as an indented tree, a line for each value.

    A plan is written without importing anything.

    Raises:
        ConfigError: It is not a plan and cannot be written as one.
    """
    return "".join(f"{line.text}\n" for line in tree_lines(outline.of(config)))


def to_mermaid(config: Any) -> str:
    """Returns a config or a plan as the text of a Mermaid flowchart, with a box for each config.

    Dotted arrows lead to shared configs. A large config is drawn from its root, up to :data:`MAX_BOXES` boxes.

    Raises:
        ConfigError: It is not a plan and cannot be written as one.
    """
    return flowchart(outline.of(config))


def tree_lines(root: Node, changes: Sequence[Change] = ()) -> list[TreeLine]:
    """Returns the lines of a graph's tree, with changes marked in it."""
    lines = list(itertools.islice(_Picture(root, changes).lines(root, "", 0), MAX_LINES + 1))
    return lines if len(lines) <= MAX_LINES else [*lines[:MAX_LINES], TreeLine(f"… more than {MAX_LINES} lines")]


def flowchart(root: Node, changes: Sequence[Change] = ()) -> str:
    """Returns the text of a graph's flowchart, with changes marked in it."""
    return "".join(f"{line}\n" for line in _Picture(root, changes).chart(root))


def mermaid_label(*lines: str) -> str:
    """Returns the lines of a label for Mermaid, in which a quote would end it and angle brackets would be HTML."""
    return "<br>".join(re.sub(r"[\"<>&#`\\]", lambda found: f"#{ord(found[0])};", line) for line in lines)


class _Picture:
    def __init__(self, root: Node, changes: Sequence[Change]) -> None:
        self._changes = {change.path: change for change in changes if change.kind in ("added", "changed", "retargeted")}
        self._removed: dict[str, list[Change]] = {}
        for change in changes:
            if change.kind == "removed":
                self._removed.setdefault(change.parent, []).append(change)
        self._opened: set[int] = set()
        """Containers that take several lines, by ``id``: there is a config or a change in them."""
        for node in outline.children_first(root):
            inside = any(c.is_config or id(c) in self._opened or c.path in self._changes for _, c in node.edges)
            if node.form in outline.CONTAINERS and (inside or node.path in self._removed):
                self._opened.add(id(node))
        self._seen: set[int] = set()

    def lines(self, node: Node, key: str, depth: int) -> Iterator[TreeLine]:
        """Yields the lines of a node and of all below it."""
        change = self._changes.get(node.path)
        text, is_open = self._text(node), node.is_config or id(node) in self._opened
        if id(node) in self._seen and is_open:
            text, is_open = f"{text}, as {node.path or 'the root'}" if text else f"as {node.path}", False
        lead = f"{'  ' * depth}{key}{':' if key and text else ''}{' ' if key and text else ''}"
        yield TreeLine(f"{lead}{text}" if text else f"{lead}:", "" if change is None else change.kind)
        if not is_open:
            return
        self._seen.add(id(node))
        for name, child in node.edges:
            yield from self.lines(child, outline.join_key("", name), depth + 1)
        for change in self._removed.get(node.path, ()):
            yield TreeLine(f"{'  ' * (depth + 1)}{_last_key(change)}: {change.old}", "removed")

    def _text(self, node: Node) -> str:
        change = self._changes.get(node.path)
        if change is not None and change.kind != "added":
            return f"{change.old} -> {change.new}"
        if id(node) in self._opened:
            return ""
        return _title(node) if node.is_config else outline.summary(node)

    def chart(self, root: Node) -> Iterator[str]:
        """Yields the lines of the flowchart."""
        names: dict[int, str] = {id(root): "n0"}
        links: list[str] = []
        marked: dict[str, list[str]] = {"added": [], "changed": []}
        waiting = [root]
        yield "flowchart LR"
        for node in waiting:
            name, kinds = names[id(node)], set()
            rows = [self._text(node) or node.form]
            own = self._changes.get(node.path)
            found = list(itertools.islice(self._rows(node, ""), MAX_ROWS + 1))
            for key, below, kind in found[:MAX_ROWS]:
                kinds.add(kind)
                if isinstance(below, str):
                    rows.append(f"{key} = {below}" if kind != "removed" else f"no more: {key} = {below}")
                    continue
                if id(below) not in names and len(names) < MAX_BOXES:
                    names[id(below)] = f"n{len(names)}"
                    waiting.append(below)
                if id(below) in names:
                    arrow = "-.->" if below.is_shared else "-->"
                    links.append(f'  {name} {arrow}|"{mermaid_label(key)}"| {names[id(below)]}')
                else:
                    rows.append(f"{key} = {_title(below)}, not drawn")
            rows += ["…"] if len(found) > MAX_ROWS else []
            yield f'  {name}["{mermaid_label(*rows)}"]'
            if own is not None or kinds - {""}:
                marked["added" if own is not None and own.kind == "added" else "changed"].append(name)
        yield from links
        for style, (kind, boxes) in zip(_STYLES, marked.items(), strict=True):
            if boxes:
                yield f"  {style}"
                yield f"  class {','.join(boxes)} {kind}"

    def _rows(self, node: Node, above: str) -> Iterator[tuple[str, Node | str, str]]:
        """Yields the key, value and kind of change of all below a box up to the next boxes."""
        for name, child in node.edges:
            key = outline.join_key(above, name)
            if id(child) in self._opened:
                yield from self._rows(child, key)
            else:
                change = self._changes.get(child.path)
                text: Node | str = child if child.is_config else self._text(child)
                yield key, text, "" if change is None or child.is_config else change.kind
        for change in self._removed.get(node.path, ()):
            yield join_paths(above, _last_key(change)), change.old, "removed"


def _title(node: Node) -> str:
    name = outline.short_target(node.target)
    return name if node.form in ("call", "recipe", "instance") else f"{node.form.title().replace('_', '')}({name})"


def _last_key(change: Change) -> str:
    return change.path[len(change.parent) :].lstrip(".")
