"""Compares two runs as they were recorded. Pure: records in, parts of a report out."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemo_airflow.config.plan import flatten
from nemo_airflow.config.views.differences import diff
from nemo_airflow.reproduction.report import Part, Verdict, changes_of
from nemo_airflow.tracking.mlflow.recorded import RecordedRun

_SEED = re.compile(r"(^|[_.])(seed|random_state)($|_)", re.IGNORECASE)
_HASH_SEED = "PYTHONHASHSEED"

_OF_THIS_TRY = re.compile(r"AIRFLOW_CTX_|TRACEPARENT$|TRACESTATE$")
"""Variables of a job that name one try of a task, and its trace."""

_ARCHITECTURE = re.compile(r"x86_64|aarch64|arm64|ppc64le|riscv64|s390x")


def compare(
    old: RecordedRun,
    new: RecordedRun,
    *,
    tolerance: float,
    ignore: Sequence[str] = (),
    outputs: tuple[Mapping[str, str] | None, Mapping[str, str] | None],
) -> tuple[Part, ...]:
    """Compares a run with another one.

    Args:
        old: The original.
        new: The other one.
        tolerance: The relative difference up to which the last values of a metric count as the same.
        ignore: Patterns of metrics and outputs that are left out.
        outputs: The digests of the outputs of both, by path; None where they could not be read.
    """

    def is_wanted(name: str) -> bool:
        return not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)

    return (
        compare_plans(old.plan, new.plan),
        compare_packages(old, new),
        compare_inputs(old, new),
        compare_executors(old.asked.get("executor"), new.asked.get("executor")),
        compare_variables(old.asked, new.asked),
        compare_images(old.environment, new.environment),
        compare_libraries(old.environment, new.environment),
        compare_devices(old.environment, new.environment),
        compare_seeds(seeds_of(old.plan, old.asked), seeds_of(new.plan, new.asked)),
        compare_ends(old.state, new.state),
        compare_outputs(*outputs, is_wanted),
        compare_metrics(old, new, tolerance, is_wanted),
    )


def compare_plans(old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Compares the configs, as the jobs resolved them."""
    lines = tuple(change.to_text() for change in diff(old, new).changes)
    return Part("plan", Verdict.DIFFERS if lines else Verdict.SAME, "", lines)


def compare_packages(old: RecordedRun, new: RecordedRun) -> Part:
    """Compares the code that was shipped, by its content."""
    if not old.package_digest and not new.package_digest:
        return Part("package", Verdict.NOT_RECORDED, "neither shipped a package: their code is not known by content")
    if old.package_digest == new.package_digest:
        return Part("package", Verdict.SAME, describe_package(old))
    return Part("package", Verdict.DIFFERS, f"{describe_package(old)} -> {describe_package(new)}")


def describe_package(run: RecordedRun) -> str:
    """Returns a run's package in words."""
    if not run.package_digest:
        return "none"
    of = f", commit {run.commit[:12]}{' with uncommitted changes' if run.dirty else ''}" if run.commit else ""
    return f"{run.package_digest[:12]}{of}"


def inputs_of(run: RecordedRun) -> dict[str, str]:
    """Returns the digests of what a job was given or has named as its data, by name."""
    artifacts = {name: text.rpartition(" ")[2] for name, text in run.inputs.items()}
    return {**{data.name: data.digest for data in run.datasets}, **artifacts}


def compare_inputs(old: RecordedRun, new: RecordedRun) -> Part:
    """Compares what the jobs were given, by digest."""
    before, after = inputs_of(old), inputs_of(new)
    lines = changes_of(before, after)
    return Part("inputs", Verdict.DIFFERS if lines else Verdict.SAME, _count(before, "input", "none"), lines)


def compare_executors(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Part:
    """Compares where the jobs ran, and with what."""
    if not old or not new:
        return Part("back-end", Verdict.NOT_RECORDED, "one of the runs does not tell its executor")
    if old["kind"] != new["kind"]:
        return Part("back-end", Verdict.DIFFERS, f"{old['kind']} -> {new['kind']}")
    # The image is a part of its own.
    lines = changes_of(*({name: side[name] for name in side if name != "container_image"} for side in (old, new)))
    return Part("back-end", Verdict.DIFFERS if lines else Verdict.SAME, str(old["kind"]), lines)


def own_variables(asked: Mapping[str, Any]) -> dict[str, str]:
    """Returns the variables that a job was given besides those of its executor and of its try."""
    of_executor = (asked.get("executor") or {}).get("env") or {}
    return {
        name: value
        for name, value in (asked.get("env") or {}).items()
        if not _OF_THIS_TRY.match(name) and of_executor.get(name) != value
    }


def compare_variables(old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Compares the variables that the jobs were given by name and value."""
    if not old or not new:
        return Part("variables", Verdict.NOT_RECORDED, "one of the runs does not tell its variables")
    before, after = own_variables(old), own_variables(new)
    lines = changes_of(before, after)
    return Part("variables", Verdict.DIFFERS if lines else Verdict.SAME, _count(before, "variable", "none"), lines)


def compare_images(old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Compares the images in which the jobs ran: by digest where both are known."""
    before, after = ({name: side.get(name, "") for name in ("image", "image_digest")} for side in (old, new))
    if not any(before.values()) and not any(after.values()):
        return Part("image", Verdict.SAME, "none: neither ran in an image")
    if before["image_digest"] and after["image_digest"]:
        names = " -> ".join(dict.fromkeys((before["image_digest"], after["image_digest"])))
        is_same = before["image_digest"] == after["image_digest"]
        return Part("image", Verdict.SAME if is_same else Verdict.DIFFERS, names)
    names = " -> ".join(dict.fromkeys((before["image"] or "none", after["image"] or "none")))
    if before["image"] != after["image"]:
        return Part("image", Verdict.DIFFERS, names)
    return Part("image", Verdict.NOT_RECORDED, f"{names}: its digest is known of at most one of the two")


def compare_libraries(old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Compares Python and the installed distributions."""
    if not old or not new:
        return Part("libraries", Verdict.NOT_RECORDED, "one of the jobs has not told its environment")
    before, after = ({"python": side.get("python", ""), **(side.get("packages") or {})} for side in (old, new))
    lines = changes_of(before, after)
    detail = f"Python {before['python']} and {_count(old.get('packages') or {}, 'distribution', 'no distribution')}"
    return Part("libraries", Verdict.DIFFERS if lines else Verdict.SAME, detail, lines)


def compare_devices(old: Mapping[str, Any], new: Mapping[str, Any]) -> Part:
    """Compares what results may depend on of the machines: architecture, number of processors, models of GPUs."""
    if not old or not new:
        return Part("devices", Verdict.NOT_RECORDED, "one of the jobs has not told its environment")
    before, after = _devices(old), _devices(new)
    lines = changes_of(before, after)
    detail = ", ".join(f"{name}: {value}" for name, value in before.items())
    return Part("devices", Verdict.DIFFERS if lines else Verdict.SAME, detail, lines)


def _devices(environment: Mapping[str, Any]) -> dict[str, Any]:
    found = _ARCHITECTURE.search(str(environment.get("platform", "")))
    return {
        "architecture": found[0] if found else "unknown",
        "processors": environment.get("cpus"),
        "GPUs": ", ".join(environment.get("gpu_models") or ()) or "none",
    }


def seeds_of(plan: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, str]:
    """Returns the seeds that a job was given: values of its config that are called so, and Python's own variable."""
    variables = own_variables(asked)
    hashing = {_HASH_SEED: variables[_HASH_SEED]} if _HASH_SEED in variables else {}
    return {path: text for path, text in flatten(plan).items() if _SEED.search(path.rpartition(".")[2])} | hashing


def compare_seeds(old: Mapping[str, str], new: Mapping[str, str]) -> Part:
    """Compares the seeds."""
    if not old and not new:
        return Part("seed", Verdict.SAME, "none: the config has no value that is called seed or random_state")
    lines = changes_of(old, new)
    detail = ", ".join(f"{name}={value}" for name, value in sorted(old.items()))
    return Part("seed", Verdict.DIFFERS if lines else Verdict.SAME, detail, lines)


def compare_ends(old: str, new: str) -> Part:
    """Compares how the jobs ended."""
    if not old or not new:
        return Part("end", Verdict.NOT_RECORDED, "the end of one of the jobs is not recorded")
    return Part("end", Verdict.SAME if old == new else Verdict.DIFFERS, " -> ".join(dict.fromkeys((old, new))))


def compare_outputs(
    old: Mapping[str, str] | None, new: Mapping[str, str] | None, is_wanted: Callable[[str], bool]
) -> Part:
    """Compares the outputs by digest."""
    if old is None or new is None:
        return Part("outputs", Verdict.NOT_RECORDED, "they are too large to be read, and have no digests in a store")
    before, after = ({path: digest for path, digest in side.items() if is_wanted(path)} for side in (old, new))
    lines = changes_of(*({path: digest[:12] for path, digest in side.items()} for side in (before, after)))
    return Part("outputs", Verdict.DIFFERS if lines else Verdict.SAME, _count(before, "file", "none"), lines)


def compare_metrics(
    old: RecordedRun, new: RecordedRun, tolerance: float, is_wanted: Callable[[str], bool] = lambda name: True
) -> Part:
    """Compares the last value of each metric of the user: that of the highest step."""
    before, after = (
        {name: value for name, value in run.metrics.items() if not name.startswith("system/") and is_wanted(name)}
        for run in (old, new)
    )
    lines: list[str] = []
    largest, where = 0.0, ""
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            lines += changes_of(*({name: repr(side[name])} if name in side else {} for side in (before, after)))
            continue
        steps = (old.steps.get(name), new.steps.get(name))
        distance = relative_difference(before[name], after[name])
        if steps[0] != steps[1]:
            lines.append(f"~ {name}: the last step is {steps[0]} -> {steps[1]}")
        elif distance > tolerance:
            lines.append(f"~ {name}: {before[name]!r} -> {after[name]!r}, a relative difference of {distance:.3g}")
        if distance > largest:
            largest, where = distance, name
    within = f"within a relative tolerance of {tolerance:g}"
    if not before and not after:
        detail = "none"
    elif lines:
        detail = f"{_count(before, 'metric', 'none')}, not all {within}" if tolerance else "not equal to the last digit"
    elif largest:
        detail = f"{_count(before, 'metric', 'none')}, {within}; the largest difference is {largest:.3g}, of {where}"
    else:
        detail = f"{_count(before, 'metric', 'none')}, equal to the last digit"
    return Part("metrics", Verdict.DIFFERS if lines else Verdict.SAME, detail, tuple(lines))


def relative_difference(old: float, new: float) -> float:
    """Returns the distance of two values as a share of the larger; 0 for two that are not a number."""
    if old == new or (math.isnan(old) and math.isnan(new)):
        return 0.0
    if not (math.isfinite(old) and math.isfinite(new)):
        return math.inf
    return abs(old - new) / max(abs(old), abs(new))


def _count(found: Mapping[str, Any], what: str, none: str) -> str:
    return none if not found else f"{len(found)} {what}{'s' if len(found) > 1 else ''}"
