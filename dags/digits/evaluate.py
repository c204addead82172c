"""Evaluates a trained classifier on held-out digits."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path

from digits.data import held_out_set
from nemo_airflow import log_metrics, output_dir


def evaluate(model: PathLike[str]) -> dict[str, float]:
    """Evaluates the classifier that a training job kept.

    Args:
        model: The file that :func:`digits.train.train` stored, wherever that ran.

    Returns:
        ``accuracy``, ``log_loss`` and ``worst_class_recall`` on the held-out digits, and their number ``samples``.
    """
    import joblib
    from sklearn.metrics import confusion_matrix, log_loss, recall_score

    images, labels = held_out_set()
    classifier = joblib.load(Path(model))
    predicted = classifier.predict(images)
    metrics = {
        "accuracy": float((predicted == labels).mean()),
        "log_loss": float(log_loss(labels, classifier.predict_proba(images))),
        "worst_class_recall": float(recall_score(labels, predicted, average=None).min()),
    }
    log_metrics({f"held_out/{name}": value for name, value in metrics.items()})
    (output_dir() / "confusion.json").write_text(json.dumps(confusion_matrix(labels, predicted).tolist()))
    print(f"on {len(labels)} held-out digits: {metrics}")
    return {**metrics, "samples": len(labels)}
