"""The graph of a config as an SVG: cards with values, lines to nested configs, dashed lines to shared ones.

Drawn without any program, font or link from outside; the same config gives the same picture. All
text is escaped, so that a page may show it.
"""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nemo_airflow.config import outline
from nemo_airflow.config.outline import Node

if TYPE_CHECKING:
    from nemo_airflow.config.differences import Change

MAX_CARDS = 120
"""Most cards in a picture; deeper configs are only counted."""

MAX_ROWS = 28
"""How many lines a card has."""

_LINE, _HEAD, _PAD, _CHARACTER = 18, 26, 10, 7.25
_GAP_X, _GAP_Y, _MARGIN = 64, 18, 16
_TEXT = 46

_UNPRINTABLE = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

STYLE = """
.nemo { color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --card: #ffffff; --edge: #9ca3af; --head: #eef2f7;
  --page: #f8fafc; --added: #dcfce7; --removed: #fee2e2; --changed: #fef3c7; --shared: #2563eb; }
@media (prefers-color-scheme: dark) { .nemo { --ink: #e5e7eb; --soft: #9ca3af; --card: #1f2530; --edge: #6b7280;
  --head: #2b3442; --page: #14181f; --added: #14532d; --removed: #6b1d1d; --changed: #634a0b; --shared: #7aa7ff; } }
.nemo text { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--ink); }
.nemo .page { fill: var(--page); }
.nemo .card { fill: var(--card); stroke: var(--edge); }
.nemo .head { fill: var(--head); }
.nemo .name { font-weight: 600; }
.nemo .key { fill: var(--soft); }
.nemo .line { fill: none; stroke: var(--edge); stroke-width: 1.4; }
.nemo .shared { fill: none; stroke: var(--shared); stroke-width: 1.4; stroke-dasharray: 5 4; }
.nemo .added { fill: var(--added); } .nemo .removed { fill: var(--removed); } .nemo .changed { fill: var(--changed); }
.nemo .gone { text-decoration: line-through; }
"""


def to_svg(config: Any) -> str:
    """Returns the picture of a config or a plan as the text of an SVG.

    A plan is drawn without importing anything. A large config is drawn from its root, up to
    :data:`MAX_CARDS` cards; the others are counted.

    Raises:
        ConfigError: It is not a plan and cannot be written as one.
    """
    return draw(outline.of(config))


def draw(root: Node, changes: Sequence[Change] = ()) -> str:
    """Returns the picture of a graph, with changes marked in it."""
    return _Picture(root, changes).draw()


@dataclasses.dataclass(slots=True)
class _Row:
    key: str
    text: str
    full: str
    mark: str = ""
    child: _Card | None = None


@dataclasses.dataclass(eq=False, slots=True)
class _Card:
    node: Node
    title: str
    depth: int
    rows: list[_Row] = dataclasses.field(default_factory=list)
    mark: str = ""
    hidden: int = 0
    x: float = 0
    y: float = 0

    @property
    def width(self) -> float:
        longest = max([len(self.title), *(len(row.key) + len(row.text) + 2 for row in self.rows)])
        return longest * _CHARACTER + 2 * _PAD

    @property
    def height(self) -> float:
        return _HEAD + len(self.rows) * _LINE + (6 if self.rows else 0)


class _Picture:
    def __init__(self, root: Node, changes: Sequence[Change]) -> None:
        self._marks: dict[str, Change] = {}
        self._removed: dict[str, list[Change]] = {}
        for change in changes:
            if change.kind == "removed":
                self._removed.setdefault(change.parent, []).append(change)
            elif change.kind not in ("shared", "unshared"):
                self._marks[change.path] = change
        self._cards: dict[int, _Card] = {}
        self._tree: dict[int, list[_Card]] = {}
        self._root = self._card(root, 0)
        self._fill()

    def _card(self, node: Node, depth: int) -> _Card:
        title = outline.short_target(node.target) if node.is_config else node.form
        if node.form in ("partial", "arg_factory"):
            title = f"{node.form.title().replace('_', '')} {title}"
        if node.form == "leaf":
            title = outline.summary(node, _TEXT)
        change = self._marks.get(node.path)
        mark = ""
        if change is not None and node.form != "leaf":
            mark = "added" if change.kind == "added" else "changed"
            if change.kind == "retargeted":
                title = f"{change.old} → {change.new}"
        card = self._cards[id(node)] = _Card(node, title, depth, mark=mark)
        return card

    def _fill(self) -> None:
        """Makes the cards, nearest to the root first, each with its rows."""
        waiting = [self._root]
        for card in waiting:
            self._tree[id(card)] = []
            for key, node in self._rows(card.node):
                self._add_row(card, key, node, waiting)
            self._add_removed(card)
            if len(card.rows) > MAX_ROWS:
                more = len(card.rows) - MAX_ROWS + 1
                hidden = {id(row.child) for row in card.rows[MAX_ROWS - 1 :] if row.child}
                marked = [row for row in card.rows[MAX_ROWS - 1 :] if row.mark and not row.child]
                card.rows = [*card.rows[: MAX_ROWS - 1], *marked[:MAX_ROWS]]
                card.rows.append(_Row("", f"… {more - len(marked[:MAX_ROWS])} more", ""))
                drop = [other for other in self._tree[id(card)] if id(other) in hidden]
                for other in drop:
                    self._tree[id(card)].remove(other)
                    waiting.remove(other)
                    del self._cards[id(other.node)]

    def _add_row(self, card: _Card, key: str, node: Node, waiting: list[_Card]) -> None:
        change = self._marks.get(node.path)
        mark = "" if change is None else "added" if change.kind == "added" else "changed"
        if node.form == "leaf" or not (node.is_config or node.is_shared):
            text = outline.summary(node, _TEXT)
            full = outline.summary(node, 2000)
            if change is not None and change.kind == "changed":
                full = f"{change.old} → {change.new}"
                text = _cut(full)
            card.rows.append(_Row(key, text, full, mark))
            return
        other = self._cards.get(id(node))
        if other is None and len(self._cards) < MAX_CARDS:
            other = self._card(node, card.depth + 1)
            self._tree[id(card)].append(other)
            waiting.append(other)
        count = "" if other else f" +{sum(1 for n in outline.iter_nodes(node) if n.is_config)} not drawn"
        name = _cut(outline.short_target(node.target) or node.form)
        card.rows.append(_Row(key, f"{name}{count}", outline.summary(node, 2000), mark, other))

    def _add_removed(self, card: _Card) -> None:
        parents = [card.node.path, *(node.path for _, node in self._rows(card.node, containers=True))]
        for parent in parents:
            for change in self._removed.get(parent, ()):
                key = change.path[len(card.node.path) :].lstrip(".")
                card.rows.append(_Row(key, _cut(change.old), change.old, "removed"))

    def _rows(self, root: Node, *, containers: bool = False) -> list[tuple[str, Node]]:
        """Returns the rows of a card: all values below it, through containers, up to the next cards."""
        found: list[tuple[str, Node]] = []
        stack = [(outline.join_key("", key), child) for key, child in reversed(root.edges)]
        while stack:
            key, node = stack.pop()
            is_open = node.form in outline.CONTAINERS and not node.is_shared and self._has_cards_or_marks(node)
            if is_open:
                stack.extend((outline.join_key(key, name), child) for name, child in reversed(node.edges))
            if is_open == containers:
                found.append((key, node))
        return found

    def _has_cards_or_marks(self, container: Node) -> bool:
        if container.path in self._removed:
            return True
        stack = [child for _, child in container.edges]
        while stack:
            node = stack.pop()
            if node.is_config or node.is_shared or node.path in self._marks or node.path in self._removed:
                return True
            stack.extend(child for _, child in node.edges)
        return False

    def draw(self) -> str:
        cards = list(self._cards.values())
        self._place(cards)
        width = max(card.x + card.width for card in cards) + _MARGIN
        height = max(card.y + card.height for card in cards) + _MARGIN
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="nemo" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
            f'width="{width:.0f}" height="{height:.0f}">',
            f"<title>{_escape(self._root.title)}</title><style>{STYLE}</style>",
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
        ]
        parts += [line for card in cards for line in self._lines(card)]
        parts += [part for card in cards for part in _drawn(card)]
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _place(self, cards: list[_Card]) -> None:
        """Puts each card to the right of all its parents, and its children in a band of their own."""
        for card in cards:  # nearest to the root first: a shared one may have to move further right
            for other in (row.child for row in card.rows):
                if other is not None:
                    other.depth = max(other.depth, card.depth + 1)
        widths: dict[int, float] = {}
        for card in cards:
            widths[card.depth] = max(widths.get(card.depth, 0), card.width)
        left: dict[int, float] = {}
        x = float(_MARGIN)
        for depth in sorted(widths):
            left[depth] = x
            x += widths[depth] + _GAP_X
        bottom: dict[int, float] = {}
        stack = [(self._root, float(_MARGIN))]
        while stack:
            card, top = stack.pop()
            card.x = left[card.depth]
            # The first free place in its column: bands of cards that reach further right may overlap it.
            card.y = max(top, bottom.get(card.depth, 0.0))
            bottom[card.depth] = card.y + card.height + _GAP_Y
            stack.extend((other, card.y) for other in reversed(self._tree[id(card)]))

    def _lines(self, card: _Card) -> list[str]:
        lines = []
        for number, row in enumerate(card.rows):
            if row.child is None:
                continue
            x1, y1 = card.x + card.width, card.y + _HEAD + number * _LINE + _LINE / 2 + 2
            x2, y2 = row.child.x, row.child.y + _HEAD / 2
            bend = max((x2 - x1) / 2, 20)
            style = "shared" if row.child.node.is_shared else "line"
            curve = f"M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}"
            lines.append(f'<path class="{style}" d="{curve}"/>')
        return lines


def _drawn(card: _Card) -> list[str]:
    box = f'x="{card.x:.0f}" y="{card.y:.0f}" width="{card.width:.0f}"'
    parts = [
        f"<g><title>{_escape(card.node.target or card.title)}</title>",
        f'<rect class="card" {box} height="{card.height:.0f}" rx="6"/>',
        f'<rect class="{card.mark or "head"}" {box} height="{_HEAD}" rx="6"/>',
        _words(card.x + _PAD, card.y + 17, f'<tspan class="name">{_escape(card.title)}</tspan>'),
        "</g>",
    ]
    for number, row in enumerate(card.rows):
        top = card.y + _HEAD + number * _LINE + 2
        inside = f'x="{card.x + 1:.0f}" y="{top:.0f}" width="{card.width - 2:.0f}" height="{_LINE}"'
        label = f'<tspan class="key">{_escape(row.key)}</tspan>  ' if row.key else ""
        struck = ' class="gone"' if row.mark == "removed" else ""
        mark = f'<rect class="{row.mark}" {inside}/>' if row.mark else ""
        words = _words(card.x + _PAD, top + 13, f"{label}<tspan{struck}>{_escape(row.text)}</tspan>")
        parts.append(f"<g><title>{_escape(row.full)}</title>{mark}{words}</g>")
    return parts


def _words(x: float, y: float, inner: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" xml:space="preserve">{inner}</text>'


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"


def _escape(text: str) -> str:
    return html.escape(_UNPRINTABLE.sub("�", text))
