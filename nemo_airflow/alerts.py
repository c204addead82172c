"""Conditions on the metrics of a job that runs: how they are written, and when they hold."""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nemo_airflow.exceptions import ConfigError
from nemo_airflow.stream import Record

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_SECONDS = {"second": 1, "minute": 60, "hour": 3600}
_CONDITION = re.compile(
    r"(?P<metric>[\w./:@-]+)\s*(?:(?P<comparison><=|>=|==|!=|<|>)\s*(?P<value>\S+)|\s(?P<nan>is\s+nan))"
    r"(?:\s+for\s+(?P<number>\d+)\s+(?P<unit>step|second|minute|hour)s?)?"
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One condition.

    Attributes:
        text: As it was written, with single blanks.
        metric: The metric's name, such as ``loss`` or ``system/gpu_util``.
        comparison: ``<``, ``<=``, ``>``, ``>=``, ``==``, ``!=`` or ``nan``.
        value: What the metric is compared with.
        points: For how many points, one after the other, it has to hold.
        seconds: For how long it has to hold.
    """

    text: str
    metric: str
    comparison: str
    value: float = math.nan
    points: int = 1
    seconds: float = 0.0

    def holds(self, value: float) -> bool:
        """Returns whether one value of the metric fulfils the condition."""
        if self.comparison == "nan":
            return math.isnan(value)
        return _COMPARISONS[self.comparison](value, self.value)


@dataclasses.dataclass(frozen=True)
class Alert:
    """A condition that has come true.

    Attributes:
        rule: The condition.
        value: The metric's value then.
        step: Its step.
    """

    rule: Rule
    value: float
    step: int

    @property
    def text(self) -> str:
        """What has happened, in one line."""
        return f"{self.rule.text}: {self.rule.metric} is {self.value:g} at step {self.step}"


def parse_rules(given: Any) -> tuple[Rule, ...]:
    """Returns the conditions of a text, or of a list of texts.

    Raises:
        ConfigError: One of them is not a condition.
    """
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, (list, tuple)):
        raise ConfigError(f"alert_if is {type(given).__name__}: give a text such as 'loss > 10', or a list of them")
    return tuple(_parse_rule(text) for text in texts)


def _parse_rule(text: Any) -> Rule:
    match = _CONDITION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(
            f"alert_if={text!r} is not a condition: write a metric, one of {' '.join(_COMPARISONS)}, and a number, or "
            "'is nan'; then perhaps for how many steps, seconds, minutes or hours: 'loss > 10 for 5 steps'"
        )
    value = math.nan if match["nan"] else _number(text, match["value"])
    number, unit = int(match["number"] or 1), match["unit"] or "step"
    if number < 1:
        raise ConfigError(f"alert_if={text!r} holds for {number} {unit}s: give at least 1")
    return Rule(
        " ".join(text.split()),
        match["metric"],
        "nan" if match["nan"] else match["comparison"],
        value,
        points=number if unit == "step" else 1,
        seconds=number * _SECONDS.get(unit, 0),
    )


def _number(text: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        hint = "; write 'is nan' for that" if value.lower() == "nan" else ""
        raise ConfigError(f"alert_if={text!r}: {value!r} is not a number{hint}")
    return number


class AlertWatch:
    """Tells once of each condition that comes true.

    Args:
        rules: The conditions.
        told: Texts of those that were told before.
    """

    def __init__(self, rules: Sequence[Rule], told: Iterable[str] = ()) -> None:
        self.told = list(told)
        self._rules: dict[str, list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.metric, []).append(rule)
        self._held: dict[Rule, tuple[int, float]] = {}
        """For how many points a condition has held, and the time of the first of them."""

    def take(self, record: Record) -> list[Alert]:
        """Returns the conditions that come true with a record of the job's stream."""
        return [
            Alert(rule, value, step)
            for name, value, step, time in _points_of(record)
            for rule in self._rules.get(name, ())
            if self._comes_true(rule, value, time)
        ]

    def _comes_true(self, rule: Rule, value: float, time: float) -> bool:
        if not rule.holds(value):
            self._held.pop(rule, None)
            return False
        count, since = self._held.get(rule, (0, time))
        self._held[rule] = (count + 1, since)
        if rule.text in self.told or count + 1 < rule.points or time - since < rule.seconds:
            return False
        self.told.append(rule.text)
        return True


def _points_of(record: Record) -> Iterator[tuple[str, float, int, float]]:
    if record.type == "metrics":
        for name, value, step, time in record.data["points"]:
            yield str(name), float(value), int(step), float(time)
    elif record.type == "sample":
        place = f"system/node_{record.data['node']}" if "node" in record.data else "system"
        for name, value in record.data["values"].items():
            yield f"{place}/{name}", float(value), 0, record.timestamp
