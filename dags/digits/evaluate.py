"""Evaluates trained classifiers on held-out digits, as they look on a day."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

from digits.data import held_out_set
from nemo_airflow import log_metrics, output_dir


def evaluate(model: PathLike[str], until: str) -> dict[str, float]:
    """Evaluates the classifier that a training job kept.

    Args:
        model: The file that :func:`digits.train.train` stored, wherever that ran.
        until: The day, as YYYY-MM-DD, whose digits it is to read.

    Returns:
        ``accuracy``, ``log_loss`` and ``worst_class_recall`` on the held-out digits, and their number ``samples``.
    """
    from sklearn.metrics import confusion_matrix

    images, labels = held_out_set(until)
    classifier = load(model)
    metrics = measure(classifier, images, labels)
    log_metrics({f"held_out/{name}": value for name, value in metrics.items()})
    confusion = confusion_matrix(labels, classifier.predict(images))
    (output_dir() / "confusion.json").write_text(json.dumps(confusion.tolist()))
    print(f"on {len(labels)} held-out digits: {metrics}")
    return {**metrics, "samples": len(labels)}


def load(model: PathLike[str]) -> Any:
    """Returns the classifier of a file that a training job kept."""
    import joblib

    return joblib.load(Path(model))


def measure(classifier: Any, images: Any, labels: Any) -> dict[str, float]:
    """Returns ``accuracy``, ``log_loss`` and ``worst_class_recall`` on labelled images."""
    from sklearn.metrics import log_loss, recall_score

    predicted = classifier.predict(images)
    return {
        "accuracy": float((predicted == labels).mean()),
        "log_loss": float(log_loss(labels, classifier.predict_proba(images))),
        "worst_class_recall": float(recall_score(labels, predicted, average=None).min()),
    }
