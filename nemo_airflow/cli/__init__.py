"""The command line: ``nemo-airflow``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from nemo_airflow import __version__, settings
from nemo_airflow.cli import (
    config_commands,
    job_commands,
    keep_commands,
    model_commands,
    settings_command,
    setup_commands,
)
from nemo_airflow.cli.bars import showing_transfers
from nemo_airflow.cli.help import Parser, is_output_closed, leave_closed_pipe
from nemo_airflow.exceptions import NemoAirflowError

_COMMANDS = (job_commands, config_commands, keep_commands, model_commands, settings_command, setup_commands)
"""Modules that add commands; each imports what runs a command only when it is run."""


def main(argv: Sequence[str] | None = None, prog: str = "nemo-airflow") -> int:
    """Runs a command and returns its exit code, which ``docs/run.md`` explains.

    Args:
        argv: The arguments; those of the process when None.
        prog: What the program is called in its help.
    """
    options = _options(argv, prog)
    try:
        with showing_transfers():
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
    except OSError as error:
        home = settings.home()
        if not error.filename or home not in (path := Path(str(error.filename)), *path.parents):
            raise
        mend = "set NEMO_AIRFLOW_HOME to a folder that can be written"
        sys.stderr.write(f"nemo-airflow: cannot use {path}: {error.strerror}; {mend}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def list_commands() -> dict[str, str]:
    """Returns the commands, each with its help."""
    [commands] = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return {action.dest: action.help or "" for action in commands._choices_actions}


def _options(argv: Sequence[str] | None, prog: str) -> argparse.Namespace:
    """Returns the options of a command; also accepts overrides after options, which argparse does not."""
    parser = _parser(prog)
    if "_ARGCOMPLETE" in os.environ:  # a shell asks, and the process ends in there
        from nemo_airflow.cli.completion import complete

        complete(parser)
    options, others = parser.parse_known_args(argv)
    takes_overrides = hasattr(options, "overrides")
    if wrong := [text for text in others if text.startswith("-") or not takes_overrides]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    if others:
        options.overrides = [*options.overrides, *others]
    return options


def _parser(prog: str = "nemo-airflow") -> argparse.ArgumentParser:
    parser = Parser(prog=prog, description="Run machine-learning experiments from Apache Airflow.")
    parser.add_argument("--version", action="version", version=f"nemo-airflow {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for group in _COMMANDS:
        group.add(commands)
    return parser
