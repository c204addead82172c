"""Examines DAG files: each is read as Airflow reads it, and each config in it is checked and rendered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2

from nemo_airflow.config import Config, Partial, build
from nemo_airflow.config.objects.faults import NotedFault, faults_noted
from nemo_airflow.config.objects.leaves import convert_leaves, iter_leaves
from nemo_airflow.config.types.graph import is_deferred, is_template, literal_of
from nemo_airflow.exceptions import ConfigError, NemoAirflowError
from nemo_airflow.executors.base import Executor
from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.working_tree import with_changes
from nemo_airflow.store import PackageStore
from nemo_airflow.validation.configs import add_checked, render_example
from nemo_airflow.validation.report import Report, add_config_faults, add_noted, place_of

_DEPTH = "AIRFLOW__CORE__DAGBAG_IMPORT_ERROR_TRACEBACK_DEPTH"
_FRAME = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)


def examine_dags(report: Report, path: Path) -> None:
    """Examines a DAG file, or all of a folder.

    Args:
        report: Where to add what is found.
        path: The file or folder.
    """
    folder = path if path.is_dir() else path.parent
    with _importing_from(folder), faults_noted() as noted:
        bag = _read_dags(path)
    for file, trace in sorted(bag.import_errors.items()):
        _add_import_error(report, Path(file) if Path(file).exists() else folder / file, trace)
    others: list[NotedFault] = list(noted)
    with _importing_from(folder), tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        packages: dict[str, str] = {}
        for dag_id, dag in sorted(bag.dags.items()):
            report.dags[dag_id] = _version_of(dag)
            for task in dag.tasks:
                others = _examine_task(report, dag, task, others, PackageStore(Path(scratch)), packages)
    add_noted(report, others)
    if not bag.dags and not bag.import_errors:
        report.add_fault(place_of(path), ConfigError("has no DAG: give a file or folder with one"))


def _read_dags(path: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    # Else the line of the DAG file is cut off where an error comes from further down.
    before = os.environ.get(_DEPTH)
    os.environ[_DEPTH] = "100"
    try:
        return DagBag(str(path), safe_mode=path.is_dir(), known_pools=set(), load_op_links=False)
    finally:
        os.environ.pop(_DEPTH)
        os.environ.update({} if before is None else {_DEPTH: before})


@contextlib.contextmanager
def _importing_from(folder: Path) -> Iterator[None]:
    """Lets DAG files import what lies beside them, as Airflow does."""
    text = str(folder.resolve())
    added = text not in sys.path
    if added:
        sys.path.insert(0, text)
    try:
        yield
    finally:
        if added:
            sys.path.remove(text)


def _add_import_error(report: Report, file: Path, trace: str) -> None:
    frames = [match for match in _FRAME.finditer(trace) if Path(match["file"]).resolve() == file.resolve()]
    lines = [line for line in trace.strip().splitlines() if line.strip()]
    line = int(frames[-1]["line"]) if frames else 0
    kind, _, message = lines[-1].partition(": ")
    name = kind.rpartition(".")[2]
    ours = kind.startswith("nemo_airflow.")
    report.add_fault(place_of(file, line), NemoAirflowError(message if ours else f"{name}: {message}".rstrip(": ")))


def _examine_task(
    report: Report, dag: Any, task: Any, noted: list[NotedFault], store: PackageStore, packages: dict[str, str]
) -> list[NotedFault]:
    """Examines the config, the executor and the packager of one task; returns what was noted of other tasks."""
    from nemo_airflow.operators import NemoRunOperator
    from nemo_airflow.operators.arguments import unwrap
    from nemo_airflow.operators.parse_checks import check_mapped_alerts

    kind = task.operator_class if task.is_mapped else type(task)
    if not (isinstance(kind, type) and issubclass(kind, NemoRunOperator)):
        return noted
    fields = {**task.partial_kwargs} if task.is_mapped else vars(task)
    config, executor, packager = (unwrap(fields.get(name)) for name in ("config", "job_executor", "packager"))
    name, place = f"{dag.dag_id}.{task.task_id}", place_of(dag.fileloc)
    before = len(report.faults)
    if task.is_mapped:
        try:
            check_mapped_alerts(fields.get("alert_if", ()), fields.get("on_alert_callback", ()))
        except NemoAirflowError as error:
            report.add_fault(place, error, name)
    package = _package_of(report, packager, dag, place, store, packages)
    configs = {name: config}  # that of a decorated function is made when the task runs
    if task.is_mapped and isinstance(given := getattr(task.expand_input, "value", None), Mapping):
        mapped = given.get("config")
        if isinstance(mapped, (list, tuple)):
            configs |= {f"{name}[{index}]": each for index, each in enumerate(mapped)}
    for shown, each in configs.items():
        if isinstance(each, (Config, Partial)):
            noted = add_config_faults(report, each, noted, place, deferred=True)
            _add_template_faults(report, dag, each, place)
            if len(report.faults) == before:
                _add_request(report, shown, each, fields, executor, package, place)
    return noted


def _add_request(
    report: Report, name: str, config: Any, fields: Mapping[str, Any], executor: Any, package: str, place: str
) -> None:
    """Adds a config without a fault as it would be run, and renders what would be sent for it."""
    from nemo_airflow.operators.parse_checks import with_known_overrides

    try:
        config = with_known_overrides(config, fields.get("overrides"), fields.get("allow") or ())
        written = convert_leaves(config, lambda _path, leaf, _annotation: _as_written(leaf))
        if add_checked(report, name, written, place, package) is None:
            return
        executor = build(executor) if isinstance(executor, Config) else executor
        if isinstance(executor, Executor) and not _has_deferred(executor):
            render_example(executor, written, name)
    except NemoAirflowError as error:
        report.add_fault(place, error, name)


def _as_written(leaf: Any) -> Any:
    """Returns what stands for a leaf in a digest: a template is a text, the output of a task is named."""
    if isinstance(leaf, str) or not is_deferred(leaf) or literal_of(leaf) is not leaf:
        return leaf
    operator = getattr(leaf, "operator", None)
    return f"the output {getattr(leaf, 'key', '')} of {getattr(operator, 'task_id', type(leaf).__name__)}"


def _has_deferred(executor: Any) -> bool:
    return any(is_template(leaf) or is_deferred(leaf) for _, leaf in iter_leaves(executor))


def _add_template_faults(report: Report, dag: Any, config: Any, place: str) -> None:
    environment = dag.get_template_env()
    for path, leaf in iter_leaves(config):
        if is_template(leaf) and isinstance(leaf, str):
            try:
                environment.parse(leaf)
            except jinja2.TemplateSyntaxError as error:
                report.add_fault(place, ConfigError(f"the template {leaf!r} cannot be read: {error.message}", path))


def _package_of(
    report: Report, packager: Any, dag: Any, place: str, store: PackageStore, packages: dict[str, str]
) -> str:
    """Returns the digest of the package of a task's code, as it is now; a fault if there can be none."""
    if not isinstance(packager, Packager):
        return ""
    key = f"{packager!r} {Path(dag.fileloc).parent}"
    if key not in packages:
        packages[key] = ""
        try:
            packages[key] = with_changes(packager).package(store, root=Path(dag.fileloc).parent).digest
        except NemoAirflowError as error:
            report.add_fault(place, error)
    return packages[key]


def _version_of(dag: Any) -> str:
    """Returns a digest by which Airflow tells the versions of a DAG apart."""
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.serialization.serialized_objects import DagSerialization

    data = json.loads(json.dumps(DagSerialization.to_dict(dag)))
    for where in ("fileloc", "relative_fileloc"):
        data["dag"].pop(where, None)
    found: Any = SerializedDagModel
    return hashlib.sha256(found.hash(data).encode()).hexdigest()
