"""Says what of this machine and of back-ends is not as jobs need it, and how to mend it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import keep_output_clean
from nemo_airflow.connections import get_connection, redact
from nemo_airflow.doctor.back_ends import examine_executor, executor_of
from nemo_airflow.doctor.machine import examine_machine
from nemo_airflow.exceptions import NemoAirflowError, NotDefinedError, SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.finding import Finding, Verdict, bad
from nemo_airflow.tracking.mlflow.address import hide_login

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_SHOWN = (
    "NEMO_AIRFLOW_",
    "AIRFLOW__NEMO_AIRFLOW__",
    "MLFLOW_TRACKING_URI",
    "AIRFLOW_HOME",
    "DOCKER_HOST",
    "KUBECONFIG",
)
"""Beginnings of the variables that a report has."""


def run(targets: Sequence[str], *, output: str, bundle: str) -> int:
    """Examines this machine and the given back-ends; returns 1 if something keeps jobs from running.

    Args:
        targets: Executors by name, YAML or file, or ids of connections.
        output: ``text`` or ``json``.
        bundle: A file for a report, or empty.
    """
    keep_output_clean()
    found = {"this machine": examine_machine(), **{_title(each): _examine(each) for each in targets}}
    as_json = {title: [dataclasses.asdict(each) for each in findings] for title, findings in found.items()}
    if output == JSON:
        print_json(as_json)
    else:
        _print(found)
    if bundle:
        try:
            Path(bundle).write_text(json.dumps(_report(as_json), indent=2) + "\n")
        except OSError as error:
            raise SettingsError(f"cannot write {bundle}: {error.strerror}") from error
        print(f"nemo-airflow: {bundle} has the report, without secrets", file=sys.stderr)
    return int(any(each.verdict is Verdict.FAIL for findings in found.values() for each in findings))


def _title(target: str) -> str:
    return target if "\n" not in target else " ".join(target.split())


def _examine(target: str) -> list[Finding]:
    try:
        executor = _executor(target)
    except NemoAirflowError as error:
        return [bad("executor", str(error))]
    return examine_executor(executor)


def _executor(target: str) -> Executor:
    if ":" in target or os.path.isfile(target):
        return load_executor(target)
    try:
        connection = get_connection(target)
    except NotDefinedError:
        try:
            return load_executor(target)
        except NemoAirflowError as error:
            raise SettingsError(f"{target!r} is neither a connection nor an executor: {error}") from None
    executor = executor_of(connection)
    if executor is None:
        raise SettingsError(
            f"connection {target!r} has the type {connection.conn_type!r}, which no executor uses by itself: give the "
            "executor, such as 'kind: docker\\ncontainer_image: python:3.11'"
        )
    return executor


def _print(found: Mapping[str, Sequence[Finding]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for title, findings in found.items():
        console.print(Text(title, style="bold"))
        width = max(len(each.name) for each in findings)
        for each in findings:
            verdict = (f"  {each.verdict:4}  ", _STYLES[each.verdict])
            console.print(Text.assemble(verdict, f"{each.name:{width}}  {each.said}"))
            if each.fix:
                console.print(Text(f"        {'':{width}}  to mend it: {each.fix}", style="dim"))


def _report(found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a report of a fault needs, without secrets."""
    packages = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
    variables = {
        name: redact(hide_login(value) if "://" in value else value)
        for name, value in sorted(os.environ.items())
        if name.startswith(_SHOWN)
    }
    text = redact(json.dumps(found))
    return {
        "findings": json.loads(text),
        "python": sys.version,
        "platform": platform.platform(),
        "settings": variables,
        "packages": dict(sorted(packages.items())),
    }
