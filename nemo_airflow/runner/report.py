"""What user code imports in a job to log metrics and keep files, independently of the tracker.

Usable from any process of the job: reports go to the runner over a Unix socket, whose path is in the
environment. Outside a job nothing is sent. Also a command, for jobs that are not Python::

    python -m nemo_airflow.runner.report metric loss 0.25 --step 3
    python -m nemo_airflow.runner.report artifact model.bin
    python -m nemo_airflow.runner.report tag stage pretraining
    python -m nemo_airflow.runner.report input s3://bucket/train --digest v2 --context training
"""

import os
import time
from typing import Any, Dict, Mapping, Optional

from nemo_airflow.runner.channel import in_job as in_job
from nemo_airflow.runner.channel import send

_OUTPUTS = "NEMO_AIRFLOW_OUTPUT_DIR"

_steps: Dict[str, int] = {}


def log_metric(name: str, value: float, step: Optional[int] = None) -> None:
    """Logs one point of a metric.

    Args:
        name: For example ``loss`` or ``train/accuracy``.
        value: A number, or a scalar of an array library; may be NaN or infinite.
        step: The point's place on the axis; one more than the last step of this name when None.

    Raises:
        TypeError: The value is not a number.
    """
    log_metrics({name: value}, step)


def log_metrics(values: Mapping[str, float], step: Optional[int] = None) -> None:
    """Logs one point each of several metrics; see :func:`log_metric`."""
    now = round(time.time(), 6)
    points = []
    for name, value in values.items():
        number = _number(name, value)
        at = _steps.get(name, -1) + 1 if step is None else int(step)
        _steps[name] = at
        points.append([name, number, at, now])
    send("metrics", points=points)


def last_steps() -> Dict[str, int]:
    """Returns the last step of each metric that this process has logged."""
    return dict(_steps)


def continue_steps(name: str, step: int) -> None:
    """Has a metric that is logged without a step go on after one."""
    _steps.setdefault(name, step)


def set_tag(name: str, value: object) -> None:
    """Sets a tag of the run: a text that describes the whole run."""
    send("tags", tags={str(name): str(value)})


def output_dir() -> "os.PathLike[str]":
    """Returns the folder whose files are kept after the job; outside a job ``./outputs``, created when needed."""
    from pathlib import Path

    folder = Path(os.environ.get(_OUTPUTS) or "outputs").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def log_artifact(path: "os.PathLike[str]", name: Optional[str] = None) -> None:
    """Copies a file or folder into the output directory. Does nothing outside a job.

    Args:
        path: The file or folder.
        name: Path of the copy in the output directory; the file's own name when None.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The name leads out of the output directory.
    """
    source = os.path.abspath(os.fspath(path))
    if not os.path.exists(source):
        raise FileNotFoundError(f"log_artifact: {source} does not exist")
    if not in_job():
        return
    folder = os.fspath(output_dir())
    relative = os.path.normpath(name or os.path.basename(source))
    if os.path.isabs(relative) or relative.split(os.sep)[0] == os.pardir:
        raise ValueError(f"log_artifact: name={name!r} leads out of the output directory")
    target = os.path.join(folder, relative)
    if os.path.realpath(source) != os.path.realpath(target):
        _copy(source, target)
    send("artifact", path=relative, name=relative, bytes=_size(target))


def _copy(source: str, target: str) -> None:
    import shutil

    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)


def _size(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def _number(name: str, value: Any) -> Any:
    if isinstance(value, str) or value is None:
        raise TypeError(f"log_metric: {name} is {value!r}, not a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"log_metric: {name} is {value!r}, not a number") from None
    if number != number or number in (float("inf"), float("-inf")):
        return str(number)  # JSON has no such numbers
    return number


def main() -> None:
    """The command line, for jobs that are not Python."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="python -m nemo_airflow.runner.report", description="Report from inside a job."
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    metric = kinds.add_parser("metric", help="log one point of a metric")
    metric.add_argument("name")
    metric.add_argument("value", type=float)
    metric.add_argument("--step", type=int)
    artifact = kinds.add_parser("artifact", help="keep a file or folder")
    artifact.add_argument("path")
    artifact.add_argument("--name")
    tag = kinds.add_parser("tag", help="set a tag of the run")
    tag.add_argument("name")
    tag.add_argument("value")
    dataset = kinds.add_parser("input", help="record a data set that the job reads")
    dataset.add_argument("source")
    dataset.add_argument("--name")
    dataset.add_argument("--digest")
    dataset.add_argument("--context", default="")
    options = parser.parse_args()
    if options.kind == "metric":
        log_metric(options.name, options.value, options.step)
    elif options.kind == "artifact":
        log_artifact(options.path, options.name)
    elif options.kind == "input":
        from nemo_airflow.runner.datasets import log_input

        log_input(options.source, options.name, digest=options.digest, context=options.context)
    else:
        set_tag(options.name, options.value)


if __name__ == "__main__":
    main()
