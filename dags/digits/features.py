"""From pixels to features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Features:
    """How images become features.

    Args:
        scaling: Divide by the largest value, give each pixel mean 0 and variance 1, or leave it.
        components: Principal components to keep; all pixels when null.
    """

    scaling: Literal["largest", "standard", "none"] = "largest"
    components: int | None = None


def transformer(features: Features) -> Any:
    """Returns the scikit-learn transformer, not fitted."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler, StandardScaler

    scalers = {"largest": MaxAbsScaler, "standard": StandardScaler, "none": FunctionTransformer}
    steps = [scalers[features.scaling]()]
    if features.components is not None:
        steps.append(PCA(features.components, random_state=0))
    return make_pipeline(*steps)
