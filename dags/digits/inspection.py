"""Whether new digits can be trained on, and whether they are still those that the champion has learned."""

from __future__ import annotations

from dataclasses import asdict
from os import PathLike
from typing import Any

from digits.baseline import describe, read_baseline
from digits.data import Data, training_set
from digits.drift import Limits, compare, to_html
from digits.evaluate import load
from nemo_airflow import log_metrics, output_dir

LEAST_SAMPLES = 20
"""Digits without which a week is not judged."""


def inspect(
    data: Data,
    limits: Limits,
    champion: str = "",
    model: PathLike[str] | None = None,
    baseline: PathLike[str] | None = None,
    engine: str = "scipy",
) -> dict[str, Any]:
    """Checks the digits of a window, and compares them with those that the champion was trained on.

    Args:
        data: The digits to look at.
        limits: From where on a difference is drift.
        champion: The champion's version; empty for none.
        model: Its file.
        baseline: What its data looked like.
        engine: ``scipy``; or ``evidently``, whose own report is kept too, if that is installed where the job runs.

    Returns:
        ``champion``; ``samples``; ``drifted``, the names of what has drifted; ``drift``, the statistics by name.

    Raises:
        ValueError: The digits cannot be trained on; the message has each reason.
    """
    images, labels = training_set(data)
    problems = find_problems(images, labels)
    drifts, before, now = [], {}, {}
    if model is not None and baseline is not None and not problems:
        before, now = read_baseline(baseline), describe(images, labels, load(model).predict(images))
        drifts = compare(before, now, limits)
        if engine == "evidently":
            _write_evidently(before, now)
    title = f"Digits of the {data.weeks} weeks before {data.until}"
    (output_dir() / "data.html").write_text(to_html(title, problems, drifts, before, now), encoding="utf-8")
    log_metrics({"data/samples": len(labels), **{f"drift/{each.name}/psi": each.psi for each in drifts}})
    if problems:
        raise ValueError(f"the digits before {data.until} cannot be used: {'; '.join(problems)}")
    drifted = [each.name for each in drifts if each.drifted]
    print(f"{len(labels)} digits; drifted since version {champion or 'none'}: {', '.join(drifted) or 'nothing'}")
    return {
        "champion": champion,
        "samples": len(labels),
        "drifted": drifted,
        "drift": {each.name: asdict(each) for each in drifts},
    }


def find_problems(images: Any, labels: Any) -> list[str]:
    """Returns why digits cannot be trained on, a line for each reason; none if they can."""
    import numpy as np

    problems = []
    if len(labels) < LEAST_SAMPLES:
        problems.append(f"{len(labels)} digits are fewer than {LEAST_SAMPLES}")
    if missing := sorted(set(range(10)) - set(labels.tolist())):
        problems.append(f"no digit is labelled {', '.join(map(str, missing))}")
    if unknown := sorted(set(labels.tolist()) - set(range(10))):
        problems.append(f"labels {', '.join(map(str, unknown))} are not digits")
    if wrong := int((~np.isfinite(images) | (images < 0) | (images > 16)).any(axis=1).sum()):
        problems.append(f"{wrong} images have values that are not between 0 and 16")
    elif empty := int((images.max(axis=1, initial=0) == 0).sum()):
        problems.append(f"{empty} images are empty")
    return problems


def _write_evidently(before: Any, now: Any) -> None:
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    reference, current = (pd.DataFrame({**each["numeric"], **each["categorical"]}) for each in (before, now))
    Report([DataDriftPreset()]).run(current, reference).save_html(str(output_dir() / "evidently.html"))
