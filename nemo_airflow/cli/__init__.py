"""The command line: ``nemo-airflow``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nemo_airflow import __version__
from nemo_airflow.cli import config_commands, job_commands, keep_commands, settings_command, setup_commands
from nemo_airflow.cli.help import Parser, is_output_closed, leave_closed_pipe
from nemo_airflow.exceptions import NemoAirflowError

_COMMANDS = (job_commands, config_commands, keep_commands, settings_command, setup_commands)
"""Modules that add commands; each imports what runs a command only when it is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 if the run failed, 2 for wrong arguments."""
    options = _options(argv)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not is_output_closed():
            raise
        return leave_closed_pipe()
    except NemoAirflowError as error:
        sys.stderr.write(f"nemo-airflow: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the options of a command; also accepts overrides after options, which argparse does not."""
    parser = _parser()
    options, others = parser.parse_known_args(argv)
    takes_overrides = hasattr(options, "overrides")
    if wrong := [text for text in others if text.startswith("-") or not takes_overrides]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        options.overrides = [*options.overrides, *others]
    return options


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="nemo-airflow", description="Run machine-learning experiments from Apache Airflow.")
    parser.add_argument("--version", action="version", version=f"nemo-airflow {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _COMMANDS:
        group.add(commands)
    return parser
