"""What a reproduction comes to: part by part, whether it is the same."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

RESULTS = ("end", "outputs", "metrics")
"""Parts that come of a job; the others are what it was made from."""

PARTS = (
    "plan", "package", "inputs", "back-end", "variables", "image", "libraries", "devices", "seed", *RESULTS,
)  # fmt: skip

_SHOWN = 20
"""Differences of one part that the text has; JSON has all."""

ALL_SAME, RESULTS_SAME, DIFFERENT = 0, 3, 4
"""Exit codes; see :attr:`Report.exit_code`."""

__all__ = ["Part", "Report", "Verdict"]


class Verdict(enum.StrEnum):
    """What is found of one part."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_RESTORED = "could not be restored"
    NOT_RECORDED = "not recorded"
    NOT_KNOWN = "not known before it runs"


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a report.

    Attributes:
        name: One of :data:`PARTS`.
        verdict: What is found.
        detail: What it is, or why, in one line.
        differences: One line for each difference.
    """

    name: str
    verdict: Verdict
    detail: str = ""
    differences: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        """Whether it is known to be the same."""
        return self.verdict is Verdict.SAME

    def to_json(self) -> dict[str, Any]:
        """Returns the part as plain JSON types."""
        return {**dataclasses.asdict(self), "verdict": str(self.verdict), "differences": list(self.differences)}


@dataclasses.dataclass(frozen=True)
class Report:
    """A comparison of a run with another one, or with what would be run now.

    Attributes:
        run_id: The original run.
        key: Its job.
        other_id: The other run; empty where none has run.
        other_key: Its job.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        overrides: The changes of a variation, which is meant to differ; empty for a reproduction.
        ignored: Patterns of metrics and outputs that were left out.
        parts: The parts.
    """

    run_id: str
    key: str
    other_id: str
    other_key: str
    tolerance: float
    parts: tuple[Part, ...]
    overrides: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def part(self, name: str) -> Part:
        """Returns a part by its name."""
        return next(part for part in self.parts if part.name == name)

    @property
    def is_same(self) -> bool:
        """Whether all parts are the same."""
        return all(part.is_same for part in self.parts)

    @property
    def results_are_same(self) -> bool:
        """Whether what came of the two is the same."""
        results = [part for part in self.parts if part.name in RESULTS]
        return bool(results) and all(part.is_same for part in results)

    @property
    def exit_code(self) -> int:
        """0: all is the same. 3: what came of it is the same, and something else differs or is not known. 4: not so."""
        return ALL_SAME if self.is_same else RESULTS_SAME if self.results_are_same else DIFFERENT

    @property
    def summary(self) -> str:
        """The report in one line."""
        others = [f"{part.name} {part.verdict}" for part in self.parts if not part.is_same]
        return "all the same" if not others else "; ".join(others)

    def headline(self) -> str:
        """Returns what was compared, in one line."""
        if not self.other_id:
            return f"run {self.run_id} ({self.key}) and what would run now"
        what = f"a variation ({', '.join(self.overrides)}) of" if self.overrides else "compared with"
        return f"run {self.other_id} ({self.other_key}), {what} run {self.run_id} ({self.key})"

    def to_json(self) -> dict[str, Any]:
        """Returns the report as plain JSON types."""
        data = dataclasses.asdict(self)
        parts = {part.name: {name: value for name, value in part.to_json().items() if name != "name"}
                 for part in self.parts}  # fmt: skip
        lists = {name: list(data[name]) for name in ("overrides", "ignored")}
        return {**data, **lists, "same": self.is_same, "results_same": self.results_are_same, "parts": parts}

    def to_text(self) -> str:
        """Returns the report as lines of text."""
        lines = [self.headline(), ""]
        width = max(len(part.name) for part in self.parts)
        for part in self.parts:
            lines.append(f"{part.name:{width}}  {part.verdict}{f': {part.detail}' if part.detail else ''}")
            lines += [f"{'':{width}}    {line}" for line in shorten(part.differences)]
        return "\n".join(lines) + "\n"


def shorten(differences: Sequence[str]) -> list[str]:
    """Returns the first differences, and how many more there are."""
    more = len(differences) - _SHOWN
    return [*differences[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]


def changes_of(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns a line for each name whose value only one has, or that differs."""
    lines = []
    for name in sorted({*old, *new}):
        if name not in new:
            lines.append(f"- {name}: {old[name]}")
        elif name not in old:
            lines.append(f"+ {name}: {new[name]}")
        elif old[name] != new[name]:
            lines.append(f"~ {name}: {old[name]} -> {new[name]}")
    return tuple(lines)
