"""Reads how code is to be shipped from the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from nemo_airflow import packaging
from nemo_airflow.exceptions import PackagingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.language.nearest import nearest
from nemo_airflow.launch.code import packager_of
from nemo_airflow.packaging.base import Packager

AUTO, NONE = "auto", "none"

GROUP = "nemo_airflow.packagers"


def load_packager(text: str, folder: Path, executor: Executor) -> Packager | None:
    """Returns a packager, or None where the code is not shipped.

    Args:
        text: ``auto``: the git repository of the folder with all changes, or nothing where there is none and the job
            sees this machine's files. ``none``; or YAML with ``kind`` and fields, such as ``kind: git``.
        folder: Where the code is.
        executor: Where the job runs.

    Raises:
        PackagingError: It is none of these, or there is nothing that could be shipped.
    """
    if text == NONE:
        return None
    if text == AUTO:
        return packager_of(folder, executor)
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PackagingError(f"--packager {text!r} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(data, Mapping) or "kind" not in data:
        raise PackagingError(f"--packager {text!r} is no packager: give {AUTO}, {NONE}, or YAML such as 'kind: git'")
    fields = dict(data)
    kind = str(fields.pop("kind"))
    kinds = _kinds()
    if kind not in kinds:
        raise PackagingError(f"--packager: there is no packager of kind {kind!r}{nearest(kind, sorted(kinds))}")
    known = [field.name for field in dataclasses.fields(kinds[kind])]
    if unknown := sorted(set(fields) - set(known)):
        raise PackagingError(f"--packager: {kind} has no field {', '.join(unknown)}{nearest(unknown[0], known)}")
    made: Packager = kinds[kind](**fields)
    return made


def _kinds() -> dict[str, Any]:
    ours: list[Any] = [getattr(packaging, name) for name in packaging.__all__]
    found = {each.kind: each for each in ours if getattr(each, "kind", "")}
    return {**found, **{entry.name: entry.load() for entry in entry_points(group=GROUP)}}
