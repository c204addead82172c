"""Pytest plugin: a table at the end of a run of where its time went."""

import time
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from side_by_side import GROUPS

SHOWN = 25
"""Files in the table; the others are one row."""


@dataclass
class Spent:
    """What the tests of one file or group took."""

    seconds: float = 0.0
    cases: set[str] = field(default_factory=set)
    start: float = float("inf")
    stop: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        """Adds one step (set-up, call or tear-down) of a test."""
        self.seconds += report.duration
        self.cases.add(report.nodeid)
        self.start = min(self.start, report.start)
        self.stop = max(self.stop, report.stop)


class TimeTable:
    """Adds up the reports of a run, and prints them as tables."""

    def __init__(self) -> None:
        self.begun = time.time()
        self.files: dict[str, Spent] = defaultdict(Spent)
        self.groups: dict[str, Spent] = defaultdict(Spent)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.files[report.nodeid.partition("::")[0]].add(report)
        group = report.nodeid.rpartition("@")[2]
        if group in GROUPS:
            self.groups[group].add(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if len(self.files) < 2:
            return
        write = terminalreporter.write_line
        terminalreporter.section("where the time went")
        if self.groups:
            write(f"{'group':<44} {'cases':>6} {'seconds':>8} {'from':>6} {'to':>6}")
            for group, spent in sorted(self.groups.items(), key=lambda entry: -entry[1].seconds):
                times = f"{spent.start - self.begun:>6.0f} {spent.stop - self.begun:>6.0f}"
                write(f"{group:<44} {len(spent.cases):>6} {spent.seconds:>8.0f} {times}")
        write(f"{'file':<44} {'cases':>6} {'seconds':>8}")
        ranked = sorted(self.files.items(), key=lambda entry: -entry[1].seconds)
        for name, spent in ranked[:SHOWN]:
            write(f"{name.removeprefix('tests/'):<44} {len(spent.cases):>6} {spent.seconds:>8.0f}")
        rest = [spent for _, spent in ranked[SHOWN:]]
        cases, seconds = sum(len(spent.cases) for spent in rest), sum(spent.seconds for spent in rest)
        write(f"{f'{len(rest)} other files':<44} {cases:>6} {seconds:>8.0f}")
        total = sum(spent.seconds for _, spent in ranked)
        write(f"{total:.0f} s of tests in {time.time() - self.begun:.0f} s")


def pytest_configure(config: pytest.Config) -> None:
    """Registers the table where the results come together: in the process that starts the workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(TimeTable(), "time-table")
