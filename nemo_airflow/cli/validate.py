"""``nemo-airflow validate``: every fault of DAG files, configs and executors, and what a revision changes."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import sys
from collections.abc import Sequence

from nemo_airflow.cli.plan import load_config, see_current_folder
from nemo_airflow.cli.terminal import divert_prints, keep_output_clean
from nemo_airflow.validation.examination import examine
from nemo_airflow.validation.report import Report
from nemo_airflow.validation.revisions import Change, examine_revision, find_changes

_WORDS = {"config": "config", "package": "package", "dag": "DAG version"}


def run(targets: Sequence[str], *, allow: Sequence[str], since: str, output: str) -> int:
    """Prints what is found; returns 1 if there is a fault.

    Args:
        targets: What to examine.
        allow: What files may import.
        since: A revision to compare with, or empty.
        output: ``text``, ``json`` or ``markdown``.
    """
    if "airflow" not in sys.modules:  # it logs each DAG file with its traceback, which is reported as a fault
        os.environ.setdefault("AIRFLOW__LOGGING__NAMESPACE_LEVELS", "airflow.dag_processing=critical")
    logging.getLogger("airflow.dag_processing").setLevel(logging.CRITICAL)
    keep_output_clean()
    see_current_folder()
    with divert_prints():
        report = examine(targets, allow, load_config)
        changes = find_changes(examine_revision(since, targets, allow), report) if since else None
    if output == "json":
        found = {} if changes is None else {"since": since, "changes": [dataclasses.asdict(each) for each in changes]}
        print(json.dumps({**report.to_json(), **found}, indent=2))
    else:
        print((_markdown if output == "markdown" else _text)(report, changes, since), end="")
    return int(bool(report.faults))


def _text(report: Report, changes: Sequence[Change] | None, since: str) -> str:
    lines = [str(fault) for fault in report.faults]
    if changes is None:
        lines += [f"{checked.digest[:12]}  {checked.name}" for checked in report.configs]
        lines += [f"{kind:12}  {name}" for name, kind in report.executors.items()]
    else:
        for each in changes:
            lines.append(f"{_WORDS[each.what]:11}  {each.how:7}  {each.name}")
            lines += [f"    {line}" for line in each.detail]
    return "\n".join([*lines, _summary(report, changes, since), ""])


def _markdown(report: Report, changes: Sequence[Change] | None, since: str) -> str:
    out = io.StringIO()
    out.write(f"### nemo-airflow: {_summary(report, changes, since)}\n")
    if report.faults:
        out.write("\n| where | in the config | fault |\n|---|---|---|\n")
        for fault in report.faults:
            out.write(f"| `{_cell(fault.place)}` | `{_cell(fault.path or '-')}` | {_cell(fault.message)} |\n")
    if changes:
        out.write("\n| | what | name |\n|---|---|---|\n")
        for each in changes:
            out.write(f"| {each.how} | {_WORDS[each.what]} | `{_cell(each.name)}` |\n")
        for each in changes:
            if each.what == "config" and each.detail:
                shown = "\n".join(line.replace("```", "'''") for line in each.detail)
                out.write(
                    f"\n<details><summary><code>{each.name}</code></summary>\n\n```diff\n{shown}\n```\n</details>\n"
                )
    elif changes is None and report.configs:
        out.write("\n| config | digest |\n|---|---|\n")
        for checked in report.configs:
            out.write(f"| `{_cell(checked.name)}` | `{checked.digest[:12]}` |\n")
    return out.getvalue()


def _summary(report: Report, changes: Sequence[Change] | None, since: str) -> str:
    parts = [_count(len(report.faults), "fault")]
    parts += [_count(len(report.configs), "valid config")] if report.configs else []
    parts += [_count(len(report.dags), "DAG")] if report.dags else []
    parts += [_count(len(report.executors), "executor")] if report.executors else []
    if changes is not None:
        parts.append(f"{_count(len(changes), 'change')} since {since}")
    return ", ".join(parts)


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")
