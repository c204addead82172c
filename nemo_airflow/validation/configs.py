"""Examines configs that are no part of a DAG: those of a module, of a file of values, and recipes; and executors."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nemo_airflow.config import plan as plans
from nemo_airflow.config.changes.composition import LAYERS, load_named
from nemo_airflow.config.changes.merging import ABSENT, merge
from nemo_airflow.config.changes.value_files import read_values
from nemo_airflow.config.objects.faults import faults_noted
from nemo_airflow.config.objects.leaves import iter_leaves
from nemo_airflow.config.objects.origins import Origin
from nemo_airflow.config.plan.allow import extend_allow
from nemo_airflow.config.types.graph import is_deferred
from nemo_airflow.exceptions import ConfigError, MissingParameterError, NemoAirflowError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.job import Job
from nemo_airflow.language.overrides.paths import parse_path
from nemo_airflow.masking import masked_plan
from nemo_airflow.validation.report import Checked, Report, add_config_faults, add_noted, place_of

_MOST_FAULTS = 1000
"""Faults of one file after which no more are looked for."""


def examine_named(report: Report, name: str, load: Any) -> None:
    """Examines ``pkg.mod:name``, or a recipe.

    Args:
        report: Where to add what is found.
        name: The name.
        load: Returns its config.
    """
    with faults_noted() as noted:
        try:
            config = load(name)
        except NemoAirflowError as error:
            report.add_fault(name, error)
            add_noted(report, noted)
            return
    before = len(report.faults)
    add_noted(report, add_config_faults(report, config, noted, name, deferred=_has_deferred(config)))
    if len(report.faults) == before:
        add_checked(report, name, config, name)


def load_recipe(name: str, allow: Sequence[str] = ()) -> Any:
    """Returns the config of a recipe.

    Raises:
        ConfigError: There is none.
    """
    return load_named(name, Origin("the command line", extend_allow(allow), Path.cwd()))


def examine_file(report: Report, path: Path, allow: Sequence[str]) -> None:
    """Examines a file of values: an executor if it has a ``kind``, else a config.

    Args:
        report: Where to add what is found.
        path: The file.
        allow: What it may import.
    """
    try:
        values = read_values(path)
    except NemoAirflowError as error:
        report.add_fault(place_of(path), error)
        return
    lines = _lines_of(path)
    if executors := _executors_in(values):
        for at, fields in executors.items():
            _examine_executor(report, path, at, dict(fields), lines)
    elif isinstance(values, Mapping):
        _examine_values(report, path, values, lines, allow)
    else:
        report.add_fault(place_of(path), ConfigError("has no mapping of values: write a _target_, or a kind"))


def add_checked(report: Report, name: str, config: Any, place: str, package: str = "") -> Checked | None:
    """Adds a config without a fault, with its digest; or as a fault why it has no plan."""
    try:
        plan = masked_plan(plans.to_plan(config, check=False))
    except NemoAirflowError as error:
        report.add_fault(place, error)
        return None
    checked = Checked(name, plans.digest(plan), plan, package)
    report.configs.append(checked)
    return checked


def render_example(executor: Executor, config: Any, name: str) -> str:
    """Returns what would be sent to a back-end for a config, with an example of a key.

    Raises:
        NemoAirflowError: It cannot be made.
    """
    plan = plans.to_plan(config, check=False)
    job = Job(key="example-1", name=name, plan=plan, allow=tuple(plans.targets(plan)), env=executor.env)
    return executor.render(job).to_text()


def _has_deferred(config: Any) -> bool:
    return any(is_deferred(leaf) for _, leaf in iter_leaves(config))


def _executors_in(values: Any) -> dict[str, Mapping[Any, Any]]:
    """Returns the executors of a file by their paths: one, several by name, or a list; nothing for a config."""
    if isinstance(values, Mapping) and "_target_" not in values and "kind" in values:
        return {"": values}
    items = dict(enumerate(values)) if isinstance(values, list) else values
    if not isinstance(items, Mapping) or not items or "_target_" in items:
        return {}
    if not all(isinstance(item, Mapping) and "kind" in item for item in items.values()):
        return {}
    return {str(key): item for key, item in items.items()}


def _examine_executor(report: Report, path: Path, at: str, fields: dict[Any, Any], lines: Mapping[str, int]) -> None:
    """Reads an executor again without each field that is wrong, until no more are."""
    before, removed = len(report.faults), list[str]()
    for _ in range(_MOST_FAULTS):
        try:
            executor = executor_from_json(fields)
            executor.launch()
            render_example(executor, _example(), path.stem)
            if len(report.faults) == before:
                report.executors[": ".join(filter(None, (place_of(path), at)))] = executor.kind
            return
        except (NemoAirflowError, TypeError, ValueError) as error:
            field = _field_of(error, fields)
            if missing := re.search(r"has no default for (\w+)", str(error)):
                field = missing[1]
                fields[field] = "example"  # to see what else is wrong
                if field in removed:
                    continue
            here, kind = (".".join(filter(None, (at, each))) for each in (field, "kind"))
            report.add_fault(place_of(path, _line_at(lines, here if field else kind)), error, here)
            if not field or field == "kind":
                return
            if missing is None:
                removed.append(field)
                del fields[field]


def _field_of(error: Exception, fields: Mapping[Any, Any]) -> str:
    """Returns the field that an error is about; empty if it names none."""
    path = error.path if isinstance(error, ConfigError) else ""
    first = path.partition(".")[0].partition("[")[0]
    if first in fields:
        return first
    text = str(error)
    named = {name: match.start() for name in map(str, fields) if (match := re.search(rf"\b{re.escape(name)}\b", text))}
    unknown = re.search(r"has no field (\w+)", text)
    if unknown and unknown[1] in fields:
        return unknown[1]
    return min((name for name in named if name != "kind"), key=lambda name: named[name], default="")


def _example() -> Any:
    from nemo_airflow.config import Script

    return Script(inline="true")


def _examine_values(
    report: Report, path: Path, values: Mapping[Any, Any], lines: Mapping[str, int], allow: Sequence[str]
) -> None:
    """Makes the config again without each value that is wrong, until no more are."""
    origin = Origin(place_of(path), extend_allow(allow), path.parent)
    removed: list[str] = []
    given: Any = copy.deepcopy(values)
    config = None
    before = len(report.faults)
    for _ in range(_MOST_FAULTS):
        try:
            config = _compose(given, origin, path)
            break
        except NemoAirflowError as error:
            at = error.path if isinstance(error, ConfigError) else ""
            if isinstance(error, MissingParameterError) and at in removed:
                break
            shown = _path_before(at, removed)
            report.add_fault(place_of(path, _line_at(lines, shown)), error, shown)
            if not _remove(given, at):
                return
            removed.append(at)
    if config is None:
        return
    inner = Report()
    add_config_faults(inner, config, (), place_of(path), deferred=_has_deferred(config))
    for fault in inner.faults:
        if not any(fault.path == each or each.startswith(f"{fault.path}.") for each in removed):
            report.add_fault(place_of(path, _line_at(lines, fault.path)), ConfigError(fault.message, fault.path))
    if len(report.faults) == before:
        add_checked(report, place_of(path), config, place_of(path))


def _compose(values: Any, origin: Origin, path: Path) -> Any:
    from nemo_airflow.config.changes.composition import expand_bases

    expanded = expand_bases(values, origin)
    config = (
        expanded if not isinstance(expanded, Mapping) else merge(ABSENT, expanded, origin, "the file's values", LAYERS)
    )
    if not hasattr(config, "__fn_or_cls__"):
        raise ConfigError(f"is a {type(config).__name__}, not a config: add a _target_")
    return config


def _remove(values: Any, path: str) -> bool:
    """Removes what is at a path, or at the nearest path above it that the values have; returns whether it did."""
    keys = parse_path(path) if path else []
    for size in range(len(keys), 0, -1):
        holder = values
        for key in keys[: size - 1]:
            holder = _child(holder, key)
        if _child(holder, keys[size - 1]) is not None or (isinstance(holder, dict) and keys[size - 1] in holder):
            del holder[int(keys[size - 1]) if isinstance(holder, list) else keys[size - 1]]
            return True
    return False


def _path_before(path: str, removed: Sequence[str]) -> str:
    """Returns the path that a value had before others were removed, in lists at lower indices too."""
    for earlier in reversed(removed):
        above, _, index = earlier.rpartition(".")
        if not index.isdigit() or not path.startswith(f"{above}."):
            continue
        number, dot, below = path[len(above) + 1 :].partition(".")
        if number.isdigit() and int(number) >= int(index):
            path = f"{above}.{int(number) + 1}{dot}{below}"
    return path


def _child(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    is_index = isinstance(value, list) and str(key).isdigit() and int(key) < len(value)
    return value[int(key)] if is_index else None


def _line_at(lines: Mapping[str, int], path: str) -> int:
    """Returns the line of a path, or of the nearest path above it."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return lines.get(path, lines.get("", 0))


def _lines_of(path: Path) -> dict[str, int]:
    """Returns the line of each value of a YAML or JSON file by its path; nothing for other files."""
    if path.suffix not in (".yaml", ".yml", ".json"):
        return {}
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError):
        return {}
    found: dict[str, int] = {}
    waiting: list[tuple[Any, str, int]] = [(root, "", 1)] if root is not None else []
    while waiting:
        node, here, line = waiting.pop()
        if here in found:
            continue
        found[here] = line
        if isinstance(node, yaml.MappingNode):
            waiting += [
                (item, f"{here}.{key.value}" if here else str(key.value), key.start_mark.line + 1)
                for key, item in node.value
            ]
        elif isinstance(node, yaml.SequenceNode):
            waiting += [
                (item, f"{here}.{index}" if here else str(index), item.start_mark.line + 1)
                for index, item in enumerate(node.value)
            ]
    return found
