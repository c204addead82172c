"""What the commands that run jobs print: the job's lines to the output, all else to the error output."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator


def print_line(line: str) -> None:
    """Prints a line of a job at once."""
    print(line, flush=True)


def say(text: str) -> None:
    """Prints a line of this command itself, apart from what the job writes."""
    print(f"nemo-airflow: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def divert_prints() -> Iterator[None]:
    """Sends what the user's code prints to the error output while it runs here: programs read a command's output."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def keep_output_clean() -> None:
    """Has libraries log their warnings to the error output: Airflow has them log all to the output.

    Python's own warnings are for the authors of code; ``python -W`` and ``PYTHONWARNINGS`` bring them back.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # which tells of each new database
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.__stdout__, sys.__stderr__):
            handler.setStream(sys.__stderr__)
            handler.setLevel(logging.WARNING)
