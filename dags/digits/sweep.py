"""One point of a sweep: training and evaluation in one job."""

from __future__ import annotations

from typing import Any

from digits.data import Data
from digits.evaluate import evaluate
from digits.features import Features
from digits.model import Model, Optimizer
from digits.train import train


def fit(data: Data, features: Features, model: Model, optimizer: Optimizer, seed: int = 0) -> dict[str, Any]:
    """Trains and evaluates; returns the varied parameters with the metrics."""
    metrics = evaluate(train(data, features, model, optimizer, seed)["model"], data.until)
    return {"hidden": model.hidden, "learning_rate": optimizer.learning_rate, **metrics}
