"""Decides whether a challenger becomes the champion, with a reason. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """A decision and its reason."""

    promote: bool
    reason: str


def decide(challenger: float, champion: float | None, margin: float = 0.0) -> Decision:
    """Compares accuracies on the same held-out data.

    Args:
        challenger: The new model's accuracy, 0 to 1.
        champion: Accuracy of the model in service, or None if there is none.
        margin: Least gain in accuracy of the challenger.
    """
    if champion is None:
        return Decision(True, f"there was no champion; held-out accuracy {challenger:.4f}")
    gain = challenger - champion
    numbers = f"held-out accuracy {challenger:.4f} against the champion's {champion:.4f} ({gain:+.4f})"
    if gain > margin:
        return Decision(True, f"better: {numbers}, more than the margin of {margin:.4f}")
    return Decision(False, f"not better: {numbers}, a gain of more than {margin:.4f} is needed")
