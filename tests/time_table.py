"""Pytest plugin: a table at the end of a run of where its time went.

Beside the seconds stand those of a processor that tests and the programs that they waited for took: the difference was
waited. What daemons do for a test (a job in a container, on a cluster) is not in them.
"""

import os
import time
from collections import defaultdict
from collections.abc import Generator
from dataclasses import dataclass, field

import pytest
from side_by_side import GROUPS

SHOWN = 25
"""Files in the table; the others are one row."""


@dataclass
class Spent:
    """What the tests of one file or group took."""

    seconds: float = 0.0
    processor: float = 0.0
    cases: set[str] = field(default_factory=set)
    start: float = float("inf")
    stop: float = 0.0

    def add(self, report: pytest.TestReport) -> None:
        """Adds one step (set-up, call or tear-down) of a test."""
        self.seconds += report.duration
        self.processor += getattr(report, "processor", 0.0)
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
        head = f"{'cases':>6} {'seconds':>8} {'processor':>10}"
        if self.groups:
            write(f"{'group':<44} {head} {'from':>6} {'to':>6}")
            for group, spent in sorted(self.groups.items(), key=lambda entry: -entry[1].seconds):
                times = f"{spent.start - self.begun:>6.0f} {spent.stop - self.begun:>6.0f}"
                write(f"{group:<44} {_row([spent])} {times}")
        write(f"{'file':<44} {head}")
        ranked = sorted(self.files.items(), key=lambda entry: -entry[1].seconds)
        for name, spent in ranked[:SHOWN]:
            write(f"{name.removeprefix('tests/'):<44} {_row([spent])}")
        write(f"{f'{len(ranked[SHOWN:])} other files':<44} {_row([spent for _, spent in ranked[SHOWN:]])}")
        write(f"{'all':<44} {_row(list(self.files.values()))}  in {time.time() - self.begun:.0f} s")


def _row(entries: list[Spent]) -> str:
    cases = sum(len(spent.cases) for spent in entries)
    seconds, processor = (sum(getattr(spent, name) for spent in entries) for name in ("seconds", "processor"))
    return f"{cases:>6} {seconds:>8.0f} {processor:>10.0f}"


_used = 0.0
"""Seconds of a processor that this process and its ended children had taken when the last step of a test ended."""


def pytest_collection_finish() -> None:
    """Begins to count: what it takes to find the tests belongs to none of them."""
    global _used
    _used = sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to the report of each step what it took of a processor."""
    global _used
    report = yield
    used = sum(os.times()[:4])
    report.processor, _used = used - _used, used
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Registers the table where the results come together: in the process that starts the workers."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(TimeTable(), "time-table")
