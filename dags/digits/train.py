"""Trains a classifier on the data of an interval."""

from __future__ import annotations

from typing import Any

from digits.baseline import write_baseline
from digits.data import RECENT_WEEKS, Data, training_set
from digits.features import Features, transformer
from digits.model import Model, Optimizer, classifier
from nemo_airflow import artifact, log_metrics, log_model, output_dir

MODEL = "digits"
"""Name of the logged model."""

_SIGNATURE = {
    "inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 64]}}],
    "outputs": [{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}],
}


def train(data: Data, features: Features, model: Model, optimizer: Optimizer, seed: int = 0) -> dict[str, Any]:
    """Trains and stores a classifier.

    Args:
        data: The digits to use.
        features: How images become features.
        model: The classifier.
        optimizer: How it is optimized.
        seed: Seed of all random numbers.

    Returns:
        ``model``, the stored file as an artifact; ``baseline``, what its newest data looked like, as an artifact;
        ``samples``; ``loss`` and ``accuracy`` on the training data.
    """
    import pickle

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
    trained = make_pipeline(prepare, network)
    path = output_dir() / "model.pkl"
    path.write_bytes(pickle.dumps(trained))
    log_model(path, MODEL, signature=_SIGNATURE, flavors=_flavors(path.name))
    newest, their_labels = training_set(Data(data.until, min(RECENT_WEEKS, data.weeks)))
    baseline = write_baseline(output_dir() / "baseline.json", newest, their_labels, trained.predict(newest))
    return {
        "model": artifact(path),
        "baseline": artifact(baseline),
        "samples": len(labels),
        "loss": loss,
        "accuracy": accuracy,
    }


def _flavors(file: str) -> dict[str, dict[str, str]]:
    """Returns how MLflow loads the file, which then needs no code of this pipeline."""
    import platform

    import sklearn

    python = {"loader_module": "mlflow.sklearn", "model_path": file, "predict_fn": "predict"}
    return {
        "python_function": {**python, "python_version": platform.python_version()},
        "sklearn": {
            "pickled_model": file,
            "serialization_format": "pickle",
            "sklearn_version": sklearn.__version__,
        },
    }
