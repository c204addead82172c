"""Reads the reports of the job's processes: a malformed one is refused, and never ends the supervisor."""

import json
import math
from typing import Any, Callable, Dict, Tuple

FAILURES = ("user_error", "out_of_memory", "preempted")
"""Kinds of failure that a process of the job may report."""

_NOT_FINITE = ("nan", "inf", "-inf")
_LARGEST_STEP = 1 << 63


def read_report(line: bytes) -> Tuple[str, Dict[str, Any]]:
    """Returns the kind of a report, and its fields.

    Raises:
        ValueError: The report does not fit into a record.
    """
    try:
        report = json.loads(line, parse_constant=_refuse_constant, parse_float=_finite)
        kind = report.pop("type")
        _CHECKS[kind](report)
        fields = {name: report[name] for name in _FIELDS[kind] if name in report}
        # Encoded as it will be written: nesting that can be read may be too deep to write.
        json.dumps(fields, allow_nan=False)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    return kind, fields


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large")
    return number


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _check_metrics(report: Dict[str, Any]) -> None:
    _check(isinstance(report["points"], list), "points is not a list")
    for point in report["points"]:
        name, value, step, timestamp = point
        _check(isinstance(name, str), "the name of a metric is not a text")
        _check(value in _NOT_FINITE if isinstance(value, str) else _is_number(value), "a metric is not a number")
        _check(_is_whole(step) and -_LARGEST_STEP <= step < _LARGEST_STEP, "a step is not a whole number of 64 bits")
        _check(_is_number(timestamp), "a time is not a number")


def _check_tags(report: Dict[str, Any]) -> None:
    _check(isinstance(report["tags"], dict), "tags is not an object")
    _check(all(isinstance(value, str) for value in report["tags"].values()), "a tag is not a text")


def _check_artifact(report: Dict[str, Any]) -> None:
    _check(isinstance(report["path"], str) and isinstance(report["name"], str), "a path is not a text")
    _check(_is_whole(report["bytes"]), "bytes is not a whole number")


def _check_checkpoint(report: Dict[str, Any]) -> None:
    _check(
        isinstance(report["path"], str) and isinstance(report["values"], dict), "a checkpoint without path or values"
    )
    _check(_is_whole(report["bytes"]), "bytes is not a whole number")


def _check_input(report: Dict[str, Any]) -> None:
    _check(all(isinstance(report[name], str) for name in _FIELDS["input"]), "a field of a data set is not a text")


def _check_model(report: Dict[str, Any]) -> None:
    _check(isinstance(report["name"], str) and isinstance(report["path"], str), "a name or path is not a text")


def _check_warning(report: Dict[str, Any]) -> None:
    _check(isinstance(report["message"], str), "the message is not a text")


def _check_config(report: Dict[str, Any]) -> None:
    _check(isinstance(report["plan"], dict), "the plan is not an object")


def _check_outcome(report: Dict[str, Any]) -> None:
    _check(report.get("failure") in (None, *FAILURES), "the failure is not of a known kind")
    if "result" in report:
        return
    error = report["error"]
    _check(isinstance(error, dict), "the error is not an object")
    _check(all(isinstance(error[name], str) for name in ("type", "message", "traceback")), "the error is not of texts")


def _check(right: bool, complaint: str) -> None:
    if not right:
        raise ValueError(complaint)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_whole(value) or isinstance(value, float)) and math.isfinite(value)


_CHECKS: Dict[str, Callable[[Dict[str, Any]], None]] = {
    "metrics": _check_metrics,
    "tags": _check_tags,
    "artifact": _check_artifact,
    "checkpoint": _check_checkpoint,
    "input": _check_input,
    "model": _check_model,
    "warning": _check_warning,
    "config": _check_config,
    "outcome": _check_outcome,
}

_FIELDS = {
    "metrics": ("points",),
    "model": ("name", "path"),
    "tags": ("tags",),
    "artifact": ("path", "name", "bytes"),
    "checkpoint": ("path", "bytes", "values"),
    "input": ("name", "source", "source_type", "digest", "context"),
    "warning": ("message",),
    "config": ("plan",),
    "outcome": ("result", "error", "failure"),
}
