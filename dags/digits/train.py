"""Trains a classifier on the data of an interval."""

from __future__ import annotations

from typing import Any

from digits.data import Data, training_set
from digits.features import Features, transformer
from digits.model import Model, Optimizer, classifier
from nemo_airflow import artifact, log_metrics, output_dir


def train(data: Data, features: Features, model: Model, optimizer: Optimizer, seed: int = 0) -> dict[str, Any]:
    """Trains and stores a classifier.

    Args:
        data: The digits to use.
        features: How images become features.
        model: The classifier.
        optimizer: How it is optimized.
        seed: Seed of all random numbers.

    Returns:
        ``model``, the stored file as an artifact; ``samples``; ``loss`` and ``accuracy`` on the training data.
    """
    import joblib
    from sklearn.pipeline import make_pipeline

    images, labels = training_set(data)
    print(f"{len(labels)} digits of the {data.weeks} weeks before {data.until}")
    prepare = transformer(features)
    inputs = prepare.fit_transform(images)
    network = classifier(model, optimizer, seed)
    loss = accuracy = float("nan")
    for epoch in range(optimizer.epochs):
        network.partial_fit(inputs, labels, classes=range(10))
        loss, accuracy = float(network.loss_), float(network.score(inputs, labels))
        log_metrics({"train/loss": loss, "train/accuracy": accuracy}, step=epoch)
        print(f"epoch {epoch + 1} of {optimizer.epochs}: loss {loss:.4f}, accuracy {accuracy:.3f}")
    path = output_dir() / "model.joblib"
    joblib.dump(make_pipeline(prepare, network), path)
    return {"model": artifact(path), "samples": len(labels), "loss": loss, "accuracy": accuracy}
