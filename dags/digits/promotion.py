"""Whether a challenger becomes the champion. Pure: what is known goes in, a decision with its reason comes out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What was decided, and why."""

    promote: bool
    reason: str


def decide(challenger: float, champion: float | None, margin: float = 0.0) -> Decision:
    """Compares accuracies on the same held-out data.

    Args:
        challenger: The new model's accuracy, 0 to 1.
        champion: That of the model in service, or None when there is none.
        margin: By how much the challenger has to be better.
    """
    if champion is None:
        return Decision(True, f"there was no champion; held-out accuracy {challenger:.4f}")
    gain = challenger - champion
    numbers = f"held-out accuracy {challenger:.4f} against the champion's {champion:.4f} ({gain:+.4f})"
    if gain > margin:
        return Decision(True, f"better: {numbers}, more than the margin of {margin:.4f}")
    return Decision(False, f"not better: {numbers}, a gain of more than {margin:.4f} is needed")
