"""Examines whatever is named: a DAG file or a folder of them, a config, a file of values, a recipe, an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.config.changes.value_files import ENDINGS
from nemo_airflow.validation.configs import examine_file, examine_named, load_recipe
from nemo_airflow.validation.dag_files import examine_dags
from nemo_airflow.validation.report import Report, existing_path


def examine(targets: Sequence[str], allow: Sequence[str], load: Callable[[str], Any]) -> Report:
    """Returns all that is found.

    Args:
        targets: A DAG file or folder, ``pkg.mod:name`` of a config, a file of values, or the name of a recipe, each.
        allow: What files may import.
        load: Returns the config ``pkg.mod:name``.

    Raises:
        SettingsError: A file does not exist.
    """
    report = Report()
    for target in targets:
        path = Path(target)
        if path.is_dir() or path.suffix == ".py":
            examine_dags(report, existing_path(path))
        elif path.suffix in ENDINGS:
            examine_file(report, existing_path(path), allow)
        elif ":" in target:
            examine_named(report, target, load)
        else:
            examine_named(report, target, lambda name: load_recipe(name, allow))
    report.faults.sort(key=_in_order)
    return report


def _in_order(fault: Any) -> tuple[str, int, str]:
    file, _, line = fault.place.rpartition(":")
    return (file, int(line), fault.path) if line.isdigit() else (fault.place, 0, fault.path)
