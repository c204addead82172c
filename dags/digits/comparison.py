"""Compares a new model with the one in service, on the same current digits."""

from __future__ import annotations

from os import PathLike
from typing import Any

from digits.data import held_out_set
from digits.evaluate import load, measure
from nemo_airflow import log_metrics

ROUNDS = 2000
"""Samples that the bootstrap draws."""


def compare(
    until: str, challenger: PathLike[str], champion: PathLike[str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compares the two on the held-out digits as they look on a day.

    Args:
        until: The day, as YYYY-MM-DD.
        challenger: The new model's file.
        champion: That of the model in service; None where there is none.
        seed: Seed of the bootstrap.

    Returns:
        ``samples``; ``challenger`` and ``champion``, the metrics of each; ``gain``, the difference of accuracies, with
        ``low`` and ``high``, its 95 % interval by a paired bootstrap; ``slices``, accuracies and sizes by slice.
        Without a champion its values are None.
    """
    import numpy as np

    images, labels = held_out_set(until)
    new = load(challenger)
    metrics = measure(new, images, labels)
    log_metrics({f"held_out/{name}": value for name, value in metrics.items()})
    result: dict[str, Any] = {"samples": len(labels), "challenger": metrics, "champion": None, "gain": None}
    is_right = new.predict(images) == labels
    was_right = None
    if champion is not None:
        old = load(champion)
        was_right = old.predict(images) == labels
        low, high = bootstrap(is_right.astype(float) - was_right, np.random.default_rng(seed))
        gain = float(is_right.mean() - was_right.mean())
        result |= {"champion": measure(old, images, labels), "gain": gain, "low": low, "high": high}
        log_metrics({"gain": gain, "gain/low": low, "gain/high": high})
    result["slices"] = {
        name: {
            "samples": int(chosen.sum()),
            "challenger": float(is_right[chosen].mean()),
            "champion": None if was_right is None else float(was_right[chosen].mean()),
        }
        for name, chosen in slices(images, labels).items()
    }
    print(f"on {len(labels)} held-out digits: {result}")
    return result


def bootstrap(differences: Any, random: Any) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of paired differences, shape (n,)."""
    import numpy as np

    drawn = random.integers(0, len(differences), (ROUNDS, len(differences)))
    low, high = np.quantile(differences[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def slices(images: Any, labels: Any) -> dict[str, Any]:
    """Returns which samples are in each slice: each digit, and the half with less ink."""
    import numpy as np

    ink = images.mean(axis=1)
    return {**{f"digit {digit}": labels == digit for digit in range(10)}, "faint": ink < np.median(ink)}
