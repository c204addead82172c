"""Whether values are distributed as they were: statistics of scipy, and a page with pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_BINS = 10
_LEAST = 1e-4
"""Share of an empty bin in the population stability index, which has a logarithm of it."""


@dataclass(frozen=True)
class Limits:
    """From where on a difference is drift: both have to be passed.

    Args:
        psi: Population stability index; above 0.25 is commonly called a large shift.
        p_value: Probability of such a difference by chance.
    """

    psi: float = 0.25
    p_value: float = 0.01


@dataclass(frozen=True)
class Drift:
    """How one feature, target or prediction differs from before.

    Attributes:
        name: What is compared.
        test: ``ks`` (Kolmogorov-Smirnov) for numbers, ``chi2`` (chi-squared) for categories.
        p_value: The test's.
        psi: Population stability index, over deciles of before or over categories.
        distance: Wasserstein distance in standard deviations of before; for categories, half the sum of the
            differences of their shares.
        drifted: Whether it is beyond the limits.
    """

    name: str
    test: str
    p_value: float
    psi: float
    distance: float
    drifted: bool


def compare(
    before: Mapping[str, Mapping[str, Sequence[float]]],
    now: Mapping[str, Mapping[str, Sequence[float]]],
    limits: Limits,
) -> list[Drift]:
    """Returns how each of the values differs. Both are as :func:`digits.baseline.describe` returns them."""
    judges = {"numeric": _numeric, "categorical": _categorical}
    return [
        judges[kind](name, values, now[kind][name], limits)
        for kind, described in before.items()
        for name, values in described.items()
    ]


def _numeric(name: str, before: Sequence[float], now: Sequence[float], limits: Limits) -> Drift:
    import numpy as np
    from scipy.stats import ks_2samp, wasserstein_distance

    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)))
    edges[0], edges[-1] = -np.inf, np.inf
    psi = stability_index(np.histogram(before, edges)[0], np.histogram(now, edges)[0])
    spread = float(np.std(before)) or 1.0
    p_value = float(ks_2samp(before, now).pvalue)
    return _judge(name, "ks", p_value, psi, float(wasserstein_distance(before, now)) / spread, limits)


def _categorical(name: str, before: Sequence[float], now: Sequence[float], limits: Limits) -> Drift:
    import numpy as np
    from scipy.stats import chi2_contingency

    kinds = sorted({*before, *now})
    counts = np.array([[list(values).count(kind) for kind in kinds] for values in (before, now)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    p_value = float(chi2_contingency(counts).pvalue) if len(kinds) > 1 else 1.0
    distance = float(np.abs(shares[0] - shares[1]).sum()) / 2
    return _judge(name, "chi2", p_value, stability_index(*counts), distance, limits)


def stability_index(before: Any, now: Any) -> float:
    """Returns the population stability index of two histograms with the same bins."""
    import numpy as np

    old, new = (np.maximum(counts / counts.sum(), _LEAST) for counts in (before, now))
    return float(((new - old) * np.log(new / old)).sum())


def _judge(name: str, test: str, p_value: float, psi: float, distance: float, limits: Limits) -> Drift:
    drifted = psi > limits.psi and p_value < limits.p_value
    return Drift(name, test, p_value, round(psi, 4), round(distance, 4), drifted)


def to_html(title: str, problems: Sequence[str], drifts: Sequence[Drift], before: Any, now: Any) -> str:
    """Returns a whole page: what is wrong, the statistics, and a picture of each distribution."""
    rows = "".join(
        f"<tr class={'drifted' if each.drifted else 'same'}><td>{html.escape(each.name)}<td>{each.test}"
        f"<td>{each.p_value:.2g}<td>{each.psi:.3f}<td>{each.distance:.3f}<td>{'drifted' if each.drifted else ''}</tr>"
        for each in drifts
    )
    pictures = "".join(
        f"<figure>{_picture(before[kind][name], values, kind == 'categorical')}<figcaption>{html.escape(name)}</figure>"
        for kind in (now if drifts else ())
        for name, values in now[kind].items()
    )
    listed = "".join(f"<li>{html.escape(problem)}" for problem in problems)
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><ul>{listed or '<li>The data is as it should be.'}</ul>"
        + (f"<table><tr><th>of<th>test<th>p<th>PSI<th>distance<th></tr>{rows}</table>" if rows else "")
        + (f"<p>Grey: the champion's data. Blue: now.</p>{pictures}" if pictures else "")
    )


_STYLE = (
    "body{font:14px sans-serif;margin:2em}td,th{padding:.2em .8em;text-align:left}.drifted{color:#b00}"
    "figure{display:inline-block}"
)


def _picture(before: Sequence[float], now: Sequence[float], is_categorical: bool) -> str:
    """Returns the two histograms side by side, as SVG."""
    import numpy as np

    low, high = min(*before, *now), max(*before, *now)
    edges = np.arange(low, high + 2) - 0.5 if is_categorical else np.linspace(low, high + 1e-9, 2 * _BINS + 1)
    shares = [np.histogram(values, edges)[0] / len(values) for values in (before, now)]
    top, width = max(each.max() for each in shares), 240 / (len(edges) - 1)
    bars = "".join(
        f"<rect x={number * width + side * width / 2:.1f} y={100 - 100 * share / top:.1f} width={width / 2:.1f} "
        f"height={100 * share / top:.1f} fill={colour} />"
        for side, (share_list, colour) in enumerate(zip(shares, ("#bbb", "#36c"), strict=True))
        for number, share in enumerate(share_list)
    )
    return f"<svg viewBox='0 0 240 100' width=240 height=100>{bars}</svg>"
