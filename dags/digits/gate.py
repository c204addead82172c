"""Decides whether a challenger becomes the champion, with a reason. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROMOTE, ASK, REFUSE = "promote", "ask", "refuse"


@dataclass(frozen=True)
class Thresholds:
    """What a challenger has to reach.

    Args:
        accuracy: Least accuracy, also where there is no champion.
        gain: Least gain in accuracy of one that a person is asked about.
        slice_loss: Largest loss in accuracy in any slice.
    """

    accuracy: float = 0.8
    gain: float = 0.0
    slice_loss: float = 0.15


@dataclass(frozen=True)
class Decision:
    """A decision and its reason.

    Attributes:
        verdict: ``promote``, ``ask`` a person, or ``refuse``.
        reason: Why, in one line.
    """

    verdict: str
    reason: str


def decide(comparison: Mapping[str, Any], thresholds: Thresholds) -> Decision:
    """Judges what :func:`digits.comparison.compare` has returned.

    A gain whose interval is above zero is promoted; one that may be chance is for a person to decide.
    """
    accuracy = comparison["challenger"]["accuracy"]
    if accuracy < thresholds.accuracy:
        return Decision(REFUSE, f"held-out accuracy {accuracy:.4f} is less than {thresholds.accuracy:.4f}")
    if comparison["champion"] is None:
        return Decision(PROMOTE, f"there was no champion; held-out accuracy {accuracy:.4f}")
    gain, low, high = (comparison[name] for name in ("gain", "low", "high"))
    numbers = (
        f"held-out accuracy {accuracy:.4f} against the champion's {comparison['champion']['accuracy']:.4f} "
        f"({gain:+.4f}, 95 % between {low:+.4f} and {high:+.4f})"
    )
    if gain <= thresholds.gain:
        return Decision(REFUSE, f"not better: {numbers}, a gain of more than {thresholds.gain:.4f} is needed")
    losses = {name: each["champion"] - each["challenger"] for name, each in comparison["slices"].items()}
    worst = max(losses, key=lambda name: losses[name])
    if losses[worst] > thresholds.slice_loss:
        allowed = f"at most {thresholds.slice_loss:.4f} is allowed"
        return Decision(REFUSE, f"worse on '{worst}' by {losses[worst]:.4f}, {allowed}: {numbers}")
    if low > 0:
        return Decision(PROMOTE, f"better: {numbers}")
    return Decision(ASK, f"perhaps better: {numbers}, which may be chance")


def refusal_of_past(until: str, champions_until: str, is_backfill: bool) -> Decision | None:
    """Returns why a model of past data does not become today's champion, or None if it may.

    Args:
        until: The day before which its data has arrived, as YYYY-MM-DD.
        champions_until: The same of the champion; empty for none.
        is_backfill: Whether the run is one of a backfill.
    """
    if is_backfill:
        return Decision(REFUSE, f"a backfill only evaluates: the data is that before {until}")
    if until < champions_until:
        return Decision(REFUSE, f"the champion has learned from newer data: until {champions_until}, and not {until}")
    return None


def to_markdown(comparison: Mapping[str, Any], decision: Decision, facts: Mapping[str, str]) -> str:
    """Returns what a person needs to decide: why, the metrics, the slices, and further facts by name."""
    champion = comparison["champion"] or {}
    rows: list[Sequence[str]] = [
        (name.replace("_", " "), f"{value:.4f}", f"{champion[name]:.4f}" if champion else "")
        for name, value in comparison["challenger"].items()
    ]
    rows += [
        (f"accuracy, {name} ({each['samples']})", f"{each['challenger']:.3f}", f"{each['champion']:.3f}")
        for name, each in comparison["slices"].items()
        if each["champion"] is not None
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    listed = "\n".join(f"- {name}: {text}" for name, text in facts.items())
    return f"{decision.reason}\n\n| | challenger | champion |\n|---|---|---|\n{table}\n\n{listed}\n"
