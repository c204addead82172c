"""The commands as ``airflow nemo ...``, for those who have Airflow's command line at hand."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from airflow.cli.cli_config import ActionCommand


def get_commands() -> list[ActionCommand]:
    """Returns Airflow's command that has all of ours; Airflow asks for it when its command line starts."""
    from airflow.cli.cli_config import ActionCommand, Arg

    what = "a command and its arguments, as of nemo-airflow"
    arguments = Arg(("arguments",), nargs=argparse.REMAINDER, help=what)  # type: ignore[no-untyped-call] # Airflow's
    return [
        ActionCommand(
            name="nemo",
            help="Run machine-learning experiments, look at their jobs, and examine back-ends",
            func=run,
            args=(arguments,),
            epilog="'airflow nemo COMMAND ...' is 'nemo-airflow COMMAND ...', which lists its commands with --help",
        )
    ]


def run(options: argparse.Namespace) -> NoReturn:
    """Runs a command and ends the process with its exit code."""
    from nemo_airflow.cli import main

    sys.exit(main(options.arguments or ["--help"]))
