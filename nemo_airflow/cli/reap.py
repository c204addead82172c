"""Finds and ends the jobs of a back-end that no task of this Airflow waits for; deletes folders of ended jobs."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import sys
from pathlib import Path

from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.terminal import keep_output_clean
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.reaping import (
    end_orphans,
    orphans_among,
    record_ends,
    remove_folders,
    state_in_database,
    survey,
    survey_folders,
)
from nemo_airflow.registered import find_executor

_DAY = 86400.0
_NAME = re.compile(r"[\w.-]+")


def run(executor: str, *, dry_run: bool, min_age: float, folders: bool, older_than: float, output: str) -> int:
    """Reads an executor and ends its orphans, or deletes the folders of ended jobs; or only shows them."""
    where = load_executor(executor)
    from airflow.utils.session import create_session

    keep_output_clean()
    jobs = asyncio.run(survey_folders(where, older_than * _DAY) if folders else survey(where, min_age))
    with create_session() as database:
        orphans = orphans_among(jobs, lambda labels: state_in_database(database, labels))
    if output != JSON:
        for orphan in orphans:
            print(orphan)
    if orphans and not dry_run:
        asyncio.run(remove_folders(where, orphans) if folders else end_orphans(where, orphans))
        if not folders and (trouble := record_ends(orphans)):
            print(f"nemo-airflow: {trouble}", file=sys.stderr)
    if output == JSON:
        print_json([dataclasses.asdict(orphan) for orphan in orphans])
        return 0
    what = ("folder", "deleted") if folders else ("orphan", "cancelled")
    print(f"{len(orphans)} {what[0] if len(orphans) == 1 else f'{what[0]}s'} {'found' if dry_run else what[1]}")
    return 0


def load_executor(text: str) -> Executor:
    """Reads an executor: its registered name, YAML or JSON with its ``kind`` and fields, or the path of such a file.

    Raises:
        SettingsError: The file cannot be read.
        ExecutorError: It is none of these, or the executor does not have a field.
    """
    is_file = os.path.isfile(text)  # a long text is no file, where Path raises
    is_name = _NAME.fullmatch(text) and not text.endswith((".yaml", ".yml", ".json"))
    if not is_file and (is_name or ":" in text):
        return find_executor(text)
    try:
        return find_executor(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read an executor from {text!r}: {error.strerror}") from error
