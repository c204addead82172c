"""The differences of two configs or plans, by dotted path. Plans are compared without importing their targets.

Plans include defaults, so a value that only became explicit is not a change. Shared values are
compared once. Items of a list are matched by what they are, so that one more in front is one
addition. The time is linear in the size of both, but for sorting what moved.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from nemo_airflow.config import outline
from nemo_airflow.config.outline import Node, summary

Kind = Literal["changed", "added", "removed", "retargeted", "moved", "shared", "unshared"]

SIGNS: Mapping[str, str] = {
    "changed": "~",
    "added": "+",
    "removed": "-",
    "retargeted": "@",
    "moved": ">",
    "shared": "=",
    "unshared": "/",
}
"""The character before each kind of change in :meth:`ConfigDiff.to_text`."""


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference.

    Attributes:
        kind: ``changed`` (a value), ``added``, ``removed``, ``retargeted`` (a config calls another
            function or class), ``moved`` (an item of a list), ``shared`` or ``unshared`` (several
            places became one object, or no longer are).
        path: Dotted path, in the new config unless it was removed.
        old: What was there, as one short line; of a move the path where it was.
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
            "moved": f": moved from {self.old}",
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

    def to_svg(self) -> str:
        """Returns the new config's picture with the changes marked in it; see :func:`nemo_airflow.config.to_svg`."""
        from nemo_airflow.config.picture import draw

        return draw(self.new, self.changes)


def diff(old: Any, new: Any) -> ConfigDiff:
    """Returns the differences of two configs.

    Args:
        old: A config, or a plan, which is read without importing anything.
        new: The same.

    Raises:
        ConfigError: One of them is not a plan and cannot be written as one.
    """
    return _Comparison(outline.of(old), outline.of(new)).run()


class _Comparison:
    def __init__(self, old: Node, new: Node) -> None:
        self._old, self._new = old, new
        self._changes: list[Change] = []
        self._identities = outline.Identities()
        self._identities.add(old)
        self._identities.add(new)
        self._stack: list[Callable[[], None]] = []
        self._seen: tuple[set[int], set[int]] = (set(), set())
        self._matched: set[tuple[int, int]] = set()
        self._pairs: list[tuple[Node, Node, str]] = []
        self._has_sharing = any(node.is_shared for root in (old, new) for node in outline.iter_nodes(root))

    def run(self) -> ConfigDiff:
        self._stack.append(lambda: self._compare(self._old, self._new, "", ""))
        while self._stack:
            self._stack.pop()()
        self._sharing()
        return ConfigDiff(tuple(self._changes), self._old, self._new)

    def _number(self, node: Node) -> int:
        return self._identities.of[id(node)]

    def _add(self, kind: Kind, path: str, parent: str, old: str = "", new: str = "") -> None:
        self._changes.append(Change(kind, path, old, new, parent))

    def _later(self, steps: Sequence[Callable[[], None]]) -> None:
        self._stack.extend(reversed(steps))

    def _compare(self, old: Node, new: Node, path: str, parent: str) -> None:
        is_same = self._number(old) == self._number(new)
        if is_same and not self._has_sharing:
            return
        if old.is_shared or new.is_shared:
            self._pairs.append((old, new, path))
            if id(old) in self._seen[0] and id(new) in self._seen[1]:
                # Both were compared at their first places. If not with each other, this place shares another value now.
                if not is_same and (id(old), id(new)) not in self._matched:
                    self._add("changed", path, parent, f"same as {old.path}", f"same as {new.path}")
                return
        self._seen[0].add(id(old))
        self._seen[1].add(id(new))
        self._matched.add((id(old), id(new)))
        if old.form == "leaf" and new.form == "leaf":
            if not is_same:
                self._add("changed", path, parent, summary(old), summary(new))
        elif old.is_config and new.is_config:
            if (old.target, old.form) != (new.target, new.form):
                self._add("retargeted", path, parent, _call(old, new), _call(new, old))
            self._match_keys(old, new, path)
        elif old.form == new.form == "dict":
            self._match_keys(old, new, path)
        elif old.form == new.form and old.form in outline.CONTAINERS:
            self._match_items(old, new, path)
        elif not is_same:
            self._add("changed", path, parent, summary(old), summary(new))

    def _match_keys(self, old: Node, new: Node, path: str) -> None:
        before = {outline.key_text(key): (key, child) for key, child in old.edges}
        after = {outline.key_text(key) for key, _ in new.edges}
        steps: list[Callable[[], None]] = []
        for key, child in new.edges:
            found = before.get(outline.key_text(key))
            steps.append(self._pair(found[1] if found else None, child, outline.place(path, key, child), path))
        for text, (key, child) in before.items():
            if text not in after:
                steps.append(self._pair(child, None, outline.place(path, key, child), path))
        self._later(steps)

    def _pair(self, old: Node | None, new: Node | None, path: str, parent: str) -> Callable[[], None]:
        if old is None:
            assert new is not None  # noqa: S101 - for the type checker: a key is on one side at least
            added = new
            return lambda: self._add("added", path, parent, new=summary(added))
        if new is None:
            return lambda: self._add("removed", path, parent, old=summary(old))
        return lambda: self._compare(old, new, path, parent)

    def _match_items(self, old: Node, new: Node, path: str) -> None:
        """Matches the items of two lists: equal ones first, then the remaining ones in order."""
        before, after = [child for _, child in old.edges], [child for _, child in new.edges]
        is_ordered = new.form in ("list", "tuple")
        places = _match(list(map(self._number, before)), list(map(self._number, after)))
        moved = _out_of_order(places) if is_ordered else set()
        free = collections.deque(sorted(set(range(len(before))) - {place for place in places if place is not None}))
        if not is_ordered:
            pass
        elif len(before) == len(after):
            # Nothing was added or removed: items at the same place belong together.
            for index, place in enumerate(places):
                if place is None and index in free:
                    free.remove(index)
                    places[index] = index
        for index, place in enumerate(places) if is_ordered else ():
            if place is None and free:
                places[index] = free.popleft()
        steps: list[Callable[[], None]] = []
        for index, place in enumerate(places):
            here = outline.place(path, index, after[index])
            if index in moved and place is not None:
                steps.append(self._move(outline.place(path, place, before[place]), here, path))
            steps.append(self._pair(None if place is None else before[place], after[index], here, path))
        steps += [self._pair(before[place], None, outline.place(path, place, before[place]), path) for place in free]
        self._later(steps)

    def _move(self, old: str, new: str, parent: str) -> Callable[[], None]:
        return lambda: self._add("moved", new, parent, old=old)

    def _sharing(self) -> None:
        """Adds which places became one object, and which no longer are."""
        for kind, mine, other in (("shared", 1, 0), ("unshared", 0, 1)):
            groups: dict[int, list[tuple[Node, Node, str]]] = {}
            for pair in self._pairs:
                groups.setdefault(id(pair[mine]), []).append(pair)
            for pairs in groups.values():
                if len(pairs) > 1 and len({id(pair[other]) for pair in pairs}) > 1:
                    paths = [path or "(the whole)" for *_, path in pairs]
                    self._add("shared" if kind == "shared" else "unshared", pairs[0][2], "", new=", ".join(paths))


def _call(node: Node, other: Node) -> str:
    name = outline.short_target(node.target)
    if name == outline.short_target(other.target) and node.target != other.target:
        name = node.target
    return name if node.form in ("call", "instance") else f"{node.form.title().replace('_', '')}({name})"


def _match(before: Sequence[int], after: Sequence[int]) -> list[int | None]:
    """Returns for each item after the place of an equal one before: the same place first, then the ends, then any."""
    places: list[int | None] = [None] * len(after)
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        places[start] = start
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        places[len(after) - 1 - end] = len(before) - 1 - end
        end += 1
    waiting: dict[int, collections.deque[int]] = {}
    for place in range(start, len(before) - end):
        waiting.setdefault(before[place], collections.deque()).append(place)
    for index in range(start, len(after) - end):
        if queue := waiting.get(after[index]):
            places[index] = queue.popleft()
    return places


def _out_of_order(places: Sequence[int | None]) -> set[int]:
    """Returns the fewest items that have to move for the others to be in their old order."""
    tails: list[int] = []
    ends: list[int] = []
    previous: dict[int, int | None] = {}
    for index, place in enumerate(places):
        if place is None:
            continue
        at = bisect.bisect_left(tails, place)
        tails[at : at + 1] = [place]
        ends[at : at + 1] = [index]
        previous[index] = ends[at - 1] if at else None
    kept: set[int] = set()
    index_or_none = ends[-1] if ends else None
    while index_or_none is not None:
        kept.add(index_or_none)
        index_or_none = previous[index_or_none]
    return {index for index, place in enumerate(places) if place is not None} - kept
