"""What an examination finds: the faults, and by what each config, package and DAG can be told from another version."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.config import Config
from nemo_airflow.config.objects.faults import NotedFault
from nemo_airflow.config.objects.validation import PlacedFault, find_faults
from nemo_airflow.config.types.graph import iter_nodes
from nemo_airflow.exceptions import ConfigError, SettingsError
from nemo_airflow.language.plan.grammar import join, path_text


@dataclasses.dataclass(frozen=True, order=True)
class Fault:
    """One fault.

    Attributes:
        place: The file and line, as ``dags/train.py:12``; the file alone where the line is not known.
        path: Dotted path in the config, or empty.
        message: What is wrong, and what to change.
    """

    place: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.path, self.message)))


@dataclasses.dataclass(frozen=True)
class Checked:
    """One config that was examined.

    Attributes:
        name: ``dag_id.task_id``, or the name under which it was given.
        digest: Digest of its plan; templates and outputs of other tasks count as they are written.
        plan: The plan.
        package: Digest of the package of its code; empty without one.
    """

    name: str
    digest: str
    plan: Mapping[str, Any]
    package: str = ""


@dataclasses.dataclass
class Report:
    """All that was found.

    Attributes:
        faults: The faults.
        configs: The configs without one.
        dags: A digest of each DAG, as Airflow tells its versions apart, by its id.
        executors: The executors that were read, by their files.
    """

    faults: list[Fault] = dataclasses.field(default_factory=list)
    configs: list[Checked] = dataclasses.field(default_factory=list)
    dags: dict[str, str] = dataclasses.field(default_factory=dict)
    executors: dict[str, str] = dataclasses.field(default_factory=dict)

    def add_fault(self, place: str, error: BaseException, path: str = "") -> None:
        """Adds an error as a fault."""
        if isinstance(error, ConfigError):
            fault = Fault(place, path or error.path, _one_line(error.message))
        else:
            fault = Fault(place, path, _one_line(str(error) or type(error).__name__))
        if fault not in self.faults:
            self.faults.append(fault)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as plain JSON types."""
        return dataclasses.asdict(self)


def add_config_faults(
    report: Report, config: Any, noted: Sequence[NotedFault], place: str, *, deferred: bool
) -> list[NotedFault]:
    """Adds the faults of a config, those noted while it was made and those found now; returns the noted ones of others.

    Args:
        report: Where to add them.
        config: The config.
        noted: What was noted while the file was read.
        place: Where the config is, for a fault whose line is not known.
        deferred: Whether templates and outputs of other tasks may stand for values.
    """
    paths = {id(value): path_text(path) for path, value, _ in iter_nodes(config) if isinstance(value, Config)}
    others = []
    known: set[tuple[str, str]] = set()

    def add(where: str, error: Exception, path: str) -> None:
        message = error.message if isinstance(error, ConfigError) else str(error)
        if (path, message) not in known:
            known.add((path, message))
            report.add_fault(where, error, path)

    for each in noted:
        if id(each.holder) in paths:
            below = each.error.path if isinstance(each.error, ConfigError) else ""
            add(place_of(each.file, each.line), each.error, _joined(paths[id(each.holder)], below))
        else:
            others.append(each)
    for fault in find_faults(config, deferred=deferred):
        add(_place_of_argument(fault) or place, fault.error, fault.error.path)
    return others


def existing_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path.

    Raises:
        SettingsError: There is nothing.
    """
    if not Path(path).exists():
        raise SettingsError(
            f"{os.fspath(path)} does not exist: give a DAG file or folder, pkg.mod:name, a file of values or a recipe"
        )
    return Path(path)


def add_noted(report: Report, noted: Sequence[NotedFault]) -> None:
    """Adds faults that were noted, of configs that nothing uses."""
    for each in noted:
        report.add_fault(place_of(each.file, each.line), each.error)


def place_of(file: str | os.PathLike[str], line: int = 0) -> str:
    """Returns a file and a line, as people write them; a file below the current folder from there."""
    path = os.fspath(file)
    if os.path.isabs(path):
        nearer = os.path.relpath(path)
        path = path if nearer.startswith("..") else nearer
    return f"{path}:{line}" if line else path


def _place_of_argument(fault: PlacedFault) -> str:
    history = getattr(fault.holder, "__argument_history__", {})
    entries = history.get("__fn_or_cls__" if fault.key is None else fault.key) or ()
    if not entries or not Path(entries[-1].location.filename).is_file():
        return ""
    return place_of(entries[-1].location.filename, entries[-1].location.line_number or 0)


def _joined(above: str, below: str) -> str:
    return join(above, below) if above and below and not below.startswith("[") else f"{above}{below}"


def _one_line(text: str) -> str:
    """Returns a message without the lines below it, which show where in an override it is wrong."""
    return " ".join(text.strip().partition("\n")[0].split())
