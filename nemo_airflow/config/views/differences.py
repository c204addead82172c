"""The differences of two configs or plans, by dotted path. Plans are compared without importing their targets.

Plans include defaults, so a value that only became explicit is not a change. Shared values are
compared once. Items of a list are matched by value, so that one more in front is one addition.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from nemo_airflow.config.views import outline, picture
from nemo_airflow.config.views.outline import Node, join_key, summary

Kind = Literal["changed", "added", "removed", "retargeted", "shared", "unshared"]

SIGNS: Mapping[str, str] = {
    "changed": "~",
    "added": "+",
    "removed": "-",
    "retargeted": "@",
    "shared": "=",
    "unshared": "/",
}
"""The character before each kind of change in :meth:`ConfigDiff.to_text`."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        kind: ``changed`` (a value), ``added``, ``removed``, ``retargeted`` (a config calls another
            function or class), ``shared`` or ``unshared`` (several places became one object, or no
            longer are).
        path: Dotted path, in the new config unless it was removed.
        old: What was there, as one short line.
        new: What is there now; of ``shared`` and ``unshared`` all the places.
        parent: Path in the new config of what holds, or held, it.
    """

    kind: Kind
    path: str
    old: str = ""
    new: str = ""
    parent: str = dataclasses.field(default="", repr=False)

    def to_text(self) -> str:
        """Returns the change as one line."""
        where = self.path or "(the whole)"
        what = {
            "added": f": {self.new}",
            "removed": f": {self.old}",
            "shared": f": now one object at {self.new}",
            "unshared": f": no longer one object at {self.new}",
        }.get(self.kind, f": {self.old} -> {self.new}")
        return f"{SIGNS[self.kind]} {where}{what}"


@dataclasses.dataclass(frozen=True)
class ConfigDiff:
    """The differences of two configs. False when there are none.

    Attributes:
        changes: In the order of the new config.
        old: The root of the old graph.
        new: The root of the new graph.
    """

    changes: tuple[Change, ...]
    old: Node = dataclasses.field(repr=False)
    new: Node = dataclasses.field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.changes)

    def to_text(self) -> str:
        """Returns one line for each change, and a last one that counts them; empty when there are none."""
        if not self.changes:
            return ""
        counts: collections.Counter[str] = collections.Counter(change.kind for change in self.changes)
        counted = ", ".join(f"{counts[kind]} {kind}" for kind in SIGNS if counts[kind])
        return "".join(f"{change.to_text()}\n" for change in self.changes) + f"{counted}\n"

    def to_json(self) -> list[dict[str, str]]:
        """Returns the changes as plain JSON types."""
        return [
            {"kind": change.kind, "path": change.path, "old": change.old, "new": change.new} for change in self.changes
        ]

    def to_tree(self) -> str:
        """Returns the new config as a tree, with the sign of its change before a line that changed."""
        lines = picture.tree_lines(self.new, self.changes)
        return "".join(f"{SIGNS.get(line.change, ' ')} {line.text}\n" for line in lines)

    def to_mermaid(self) -> str:
        """Returns the new config as a flowchart with the changes in it; see :func:`nemo_airflow.config.to_mermaid`."""
        return picture.flowchart(self.new, self.changes)


def diff(old: Any, new: Any) -> ConfigDiff:
    """Returns the differences of two configs.

    Args:
        old: A config, or a plan, which is read without importing anything.
        new: The same.

    Raises:
        ConfigError: One of them is not a plan and cannot be written as one.
    """
    return _Comparison(outline.of(old), outline.of(new)).run()


@dataclasses.dataclass(frozen=True)
class _Pair:
    """What is at one place in both graphs; None on the side that has nothing there."""

    path: str
    parent: str
    old: Node | None
    new: Node | None


class _Comparison:
    def __init__(self, old: Node, new: Node) -> None:
        self._old, self._new = old, new
        self._changes: list[Change] = []
        identities = outline.Identities()
        identities.add(old)
        identities.add(new)
        self._number = identities.of
        self._compared: set[tuple[int, int]] = set()

    def run(self) -> ConfigDiff:
        self._visit(_Pair("", "", self._old, self._new))
        self._compare_sharing()
        return ConfigDiff(tuple(self._changes), self._old, self._new)

    def _visit(self, pair: _Pair) -> None:
        for each in self._compare(pair):
            self._visit(each)

    def _add(self, kind: Kind, pair: _Pair, old: str = "", new: str = "") -> None:
        self._changes.append(Change(kind, pair.path, old, new, pair.parent))

    def _compare(self, pair: _Pair) -> Iterator[_Pair]:
        """Adds the changes of a pair itself, and returns the pairs below it."""
        old, new = pair.old, pair.new
        nothing: Iterator[_Pair] = iter(())
        if old is None or new is None:
            if new is not None:
                self._add("added", pair, new=summary(new))
            elif old is not None:
                self._add("removed", pair, old=summary(old))
            return nothing
        if self._number[id(old)] == self._number[id(new)] or (id(old), id(new)) in self._compared:
            return nothing
        self._compared.add((id(old), id(new)))
        if old.is_config and new.is_config:
            if (old.target, old.form) != (new.target, new.form):
                self._add("retargeted", pair, _call(old, new), _call(new, old))
            return _by_key(pair.path, old, new)
        if old.form == new.form == "dict":
            return _by_key(pair.path, old, new)
        if old.form == new.form and old.form in outline.CONTAINERS:
            return self._by_value(pair.path, old, new)
        self._add("changed", pair, summary(old), summary(new))
        return nothing

    def _by_value(self, path: str, old: Node, new: Node) -> Iterator[_Pair]:
        """Yields the items of two lists or sets that are not equal; in lists, between equal ones in their order."""
        before, after = [child for _, child in old.edges], [child for _, child in new.edges]
        of_old = [self._number[id(item)] for item in before]
        of_new = [self._number[id(item)] for item in after]
        if new.form in ("set", "frozenset"):
            kept = set(of_old) & set(of_new)
            places: list[tuple[int | None, int | None]] = [
                *((None, index) for index, number in enumerate(of_new) if number not in kept),
                *((index, None) for index, number in enumerate(of_old) if number not in kept),
            ]
        elif len(before) == len(after):  # nothing was added or removed: items at the same place belong together
            places = [(index, index) for index in range(len(after))]
        else:
            codes = difflib.SequenceMatcher(None, of_old, of_new).get_opcodes()
            places = [
                place
                for code, old_start, old_end, new_start, new_end in codes
                if code != "equal"
                for place in itertools.zip_longest(range(old_start, old_end), range(new_start, new_end))
            ]
        for was, now in places:
            if now is not None:
                item = before[was] if was is not None else None
                yield _Pair(join_key(path, now), path, item, after[now])
            elif was is not None:
                yield _Pair(join_key(path, was), path, before[was], None)

    def _compare_sharing(self) -> None:
        """Adds which places became one object, and which no longer are."""
        at: list[dict[str, int]] = []
        for root in (self._old, self._new):
            at.append({place: id(node) for node in outline.iter_nodes(root) for place in node.places})
        sides: tuple[tuple[Kind, Node, dict[str, int]], ...]
        sides = (("shared", self._new, at[0]), ("unshared", self._old, at[1]))
        for kind, root, elsewhere in sides:
            for node in outline.iter_nodes(root):
                if node.is_shared and len({elsewhere[place] for place in node.places if place in elsewhere}) > 1:
                    pair = _Pair(node.path, "", node, node)
                    self._add(kind, pair, new=", ".join(place or "(the whole)" for place in node.places))


def _by_key(path: str, old: Node, new: Node) -> Iterator[_Pair]:
    before = {outline.key_text(key): (key, child) for key, child in old.edges}
    for key, child in new.edges:
        _, other = before.pop(outline.key_text(key), (key, None))
        yield _Pair(join_key(path, key), path, other, child)
    for key, child in before.values():
        yield _Pair(join_key(path, key), path, child, None)


def _call(node: Node, other: Node) -> str:
    name = outline.short_target(node.target)
    if name == outline.short_target(other.target) and node.target != other.target:
        name = node.target
    return name if node.form in ("call", "instance") else f"{node.form.title().replace('_', '')}({name})"
