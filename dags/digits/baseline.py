"""What digits look like, in few numbers: a model's baseline, with which later digits are compared."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any


def describe(images: Any, labels: Any, predicted: Any) -> dict[str, dict[str, list[float]]]:
    """Returns the values of each feature, target and prediction, an entry for each image.

    Args:
        images: Shape (n, 64), values 0 to 16.
        labels: Shape (n,).
        predicted: What a model makes of the images, shape (n,).

    Returns:
        ``numeric`` and ``categorical``, each with the values by name.
    """
    import numpy as np

    pixels = images.reshape(-1, 8, 8)
    ink = pixels.sum(axis=(1, 2)) + 1e-9
    columns, rows = np.arange(8), np.arange(8)[:, None]
    numeric = {
        "ink": pixels.mean(axis=(1, 2)),
        "centre_x": (pixels * columns).sum(axis=(1, 2)) / ink,
        "centre_y": (pixels * rows).sum(axis=(1, 2)) / ink,
    }
    categorical = {"target": labels, "prediction": predicted}
    return {
        "numeric": {name: [round(float(value), 4) for value in values] for name, values in numeric.items()},
        "categorical": {name: [int(value) for value in values] for name, values in categorical.items()},
    }


def write_baseline(path: Path, images: Any, labels: Any, predicted: Any) -> Path:
    """Writes the description as JSON, and returns the path."""
    path.write_text(json.dumps(describe(images, labels, predicted)))
    return path


def read_baseline(path: PathLike[str]) -> dict[str, dict[str, list[float]]]:
    """The inverse of :func:`write_baseline`."""
    found: dict[str, dict[str, list[float]]] = json.loads(Path(path).read_text())
    return found
