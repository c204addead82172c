"""Scores new digits with the model in service, and with its challenger for comparison."""

from __future__ import annotations

import csv
from os import PathLike
from typing import Any

from digits.baseline import describe, read_baseline
from digits.data import Data, training_set
from digits.drift import Limits, compare
from digits.evaluate import load
from nemo_airflow import artifact, log_metrics, output_dir


def score(
    data: Data,
    champion: PathLike[str],
    baseline: PathLike[str],
    limits: Limits,
    challenger: PathLike[str] | None = None,
) -> dict[str, Any]:
    """Writes a prediction for each digit of a window.

    Args:
        data: The digits to score.
        champion: The file of the model in service, whose predictions count.
        baseline: What its training data looked like.
        limits: From where on a difference is drift.
        challenger: The file of a model in its shadow: what it predicts is written beside, and counted.

    Returns:
        ``predictions``, a table as an artifact; ``samples``; ``drifted``, whether the predictions have; ``agreement``,
        the share of digits on which the two models agree, or None.
    """
    images, labels = training_set(data)
    predicted = load(champion).predict(images)
    shadow = load(challenger).predict(images) if challenger is not None else None
    path = output_dir() / "predictions.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["digit", "prediction", *(["shadow"] if shadow is not None else [])])
        rows.writerows(zip(range(len(images)), predicted, *([shadow] if shadow is not None else []), strict=True))
    drifts = compare(read_baseline(baseline), describe(images, labels, predicted), limits)
    [prediction] = [each for each in drifts if each.name == "prediction"]
    agreement = None if shadow is None else float((shadow == predicted).mean())
    log_metrics({"drift/prediction/psi": prediction.psi})
    if agreement is not None:
        log_metrics({"shadow/agreement": agreement})
    return {
        "predictions": artifact(path),
        "samples": len(images),
        "drifted": prediction.drifted,
        "agreement": agreement,
    }
