"""The classifier and how it is optimized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Model:
    """A multi-layer perceptron.

    Args:
        hidden: Units of each hidden layer.
        activation: Activation function of the hidden units.
        l2: Strength of the penalty on large weights.
    """

    hidden: list[int]
    activation: Literal["relu", "tanh", "logistic"] = "relu"
    l2: float = 1e-4


@dataclass(frozen=True)
class Optimizer:
    """Stochastic gradient descent, or Adam.

    Args:
        method: The algorithm.
        learning_rate: Size of the first steps.
        epochs: Times that all the data is seen.
        batch_size: Samples in a step.
    """

    method: Literal["adam", "sgd"] = "adam"
    learning_rate: float = 0.005
    epochs: int = 12
    batch_size: int = 32

    def validate(self) -> None:
        """Checks what the types do not express."""
        for name in ("learning_rate", "epochs", "batch_size"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive")


def classifier(model: Model, optimizer: Optimizer, seed: int) -> Any:
    """Returns the scikit-learn classifier, not fitted."""
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=tuple(model.hidden),
        activation=model.activation,
        alpha=model.l2,
        solver=optimizer.method,
        learning_rate_init=optimizer.learning_rate,
        batch_size=optimizer.batch_size,
        random_state=seed,
    )
