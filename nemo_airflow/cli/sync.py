"""Delivers what waits on this machine for tracking servers that did not take it."""

from __future__ import annotations

import sys
import time
from collections import Counter

from nemo_airflow.tracking.delivery import Report, deliver_all
from nemo_airflow.tracking.spool import Spool


def run(*, with_refused: bool, dry_run: bool) -> int:
    """Delivers all entries, or only lists them; returns 1 if some still wait."""
    spool = Spool()
    entries = spool.entries()
    if dry_run:
        for entry in entries:
            print(f"{entry.key}: since {_when(entry.began)}, in {entry.folder}{_refusal(entry.refusal)}")
    reports = [] if dry_run else [_say(report) for report in deliver_all(spool, with_refused=with_refused)]
    count = Counter(bool(report.problem) for report in reports)
    waiting = len(entries) if dry_run else count[True]
    print(f"{count[False]} delivered, {waiting} waiting in {spool.folder}")
    return 1 if waiting else 0


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


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _refusal(reason: str) -> str:
    return f", refused: {reason}; 'nemo-airflow sync --all' tries it again" if reason else ""
