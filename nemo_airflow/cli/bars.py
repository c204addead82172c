"""Shows transfers as bars on a terminal; elsewhere each says in a line now and then how far it has come."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

from nemo_airflow import progress
from nemo_airflow.progress import Progress


@contextlib.contextmanager
def showing_transfers() -> Iterator[None]:
    """Shows packages that are sent, and outputs that are fetched, in the meantime."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield
        return
    bars = _Bars()
    with progress.watched_by(bars.show):
        try:
            yield
        finally:
            bars.close()


class _Bars:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bars: Any = None
        self._tasks: dict[Progress, Any] = {}

    def show(self, transfer: Progress) -> None:
        """Draws a transfer; called from any thread whenever it has come further."""
        with self._lock:
            if self._bars is None:
                self._bars = _make_bars()
            if transfer not in self._tasks:
                if not self._tasks:
                    self._bars.start()
                self._tasks[transfer] = self._bars.add_task(transfer.what, total=transfer.total)
            task = self._tasks[transfer]
            self._bars.update(task, completed=transfer.size)
            if transfer.total is not None and transfer.size >= transfer.total:
                self._bars.remove_task(task)
                del self._tasks[transfer]
                if not self._tasks:
                    self._bars.stop()

    def close(self) -> None:
        """Leaves the terminal as it was."""
        with self._lock:
            if self._tasks:
                self._bars.stop()


def _make_bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    # What a job writes goes to the output as it is: only lines of the error output are put above the bars.
    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
    )
