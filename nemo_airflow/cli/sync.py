"""Delivers what waits on this machine for tracking servers that did not take it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from nemo_airflow.cli.output import JSON, print_json, time_text
from nemo_airflow.tracking.delivery import Report, deliver_all
from nemo_airflow.tracking.spool import Entry, Spool


def run(*, with_refused: bool, dry_run: bool, output: str) -> int:
    """Delivers all entries, or only lists them; returns 1 if some still wait."""
    spool = Spool()
    entries = spool.entries()
    if output == JSON:
        return _run_for_program(spool, entries, with_refused=with_refused, dry_run=dry_run)
    if dry_run:
        for entry in entries:
            print(f"{entry.key}: since {time_text(entry.began)}, in {entry.folder}{_refusal(entry.refusal)}")
    reports = [] if dry_run else [_say(report) for report in deliver_all(spool, with_refused=with_refused)]
    count = Counter(bool(report.problem) for report in reports)
    waiting = len(entries) if dry_run else count[True]
    print(f"{count[False]} delivered, {waiting} waiting in {spool.folder}")
    return 1 if waiting else 0


def _run_for_program(spool: Spool, entries: Sequence[Entry], *, with_refused: bool, dry_run: bool) -> int:
    """Delivers as :func:`run` does, and prints what has become of each entry as JSON."""
    what: list[tuple[Entry, Report | None]] = [(entry, None) for entry in entries]
    if not dry_run:
        what = [(report.entry, report) for report in deliver_all(spool, with_refused=with_refused)]
    rows = [
        {"key": entry.key, "began": entry.began, "folder": str(entry.folder), "refusal": entry.refusal}
        | ({"run_id": report.run_id, "problem": report.problem, "refused": report.refused} if report else {})
        for entry, report in what
    ]
    print_json(rows)
    return int(any(report is None or report.problem for _, report in what))


def _say(report: Report) -> Report:
    entry = report.entry
    if report.problem:
        print(
            f"{entry.key}: not delivered: {report.problem}; it waits in {entry.folder}: deliver it again with "
            f"'nemo-airflow sync{' --all' if entry.refusal else ''}', or delete the folder to give it up",
            file=sys.stderr,
        )
        return report
    print(f"{entry.key}: run {report.run_id} has {report.contents or 'nothing more'}")
    for refused in report.refused:
        print(f"{entry.key}: the tracker refuses {refused}", file=sys.stderr)
    return report


def _refusal(reason: str) -> str:
    return f", refused: {reason}; 'nemo-airflow sync --all' tries it again" if reason else ""
