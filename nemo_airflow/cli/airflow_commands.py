"""The commands of ``nemo-airflow`` as ``airflow nemo ...``."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from airflow.cli.cli_config import ActionCommand, Arg, GroupCommand

from nemo_airflow.cli import list_commands, main

PROG = "airflow nemo"


def get_commands() -> list[GroupCommand]:
    """Returns the group of commands for Airflow's own command line; each is defined once, in this package's."""
    commands = [
        ActionCommand(name=name, help=text, func=functools.partial(_run, name), args=(_Arguments(name),))
        for name, text in list_commands().items()
    ]
    return [GroupCommand(name="nemo", help="Run machine-learning experiments without a DAG", subcommands=commands)]


def _run(name: str, options: argparse.Namespace) -> None:
    sys.exit(main([name, *options.arguments], prog=PROG))


class _Arguments(Arg):
    """All arguments of a command, as they are: this package's own parser reads them, and prints the help.

    Args:
        name: The command.
    """

    def __init__(self, name: str) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            ("arguments",), nargs=argparse.REMAINDER, help=f"those of nemo-airflow {name}"
        )
        self._name = name

    def add_to_parser(self, parser: argparse.ArgumentParser) -> None:
        """See :class:`Arg`."""
        super().add_to_parser(parser)
        # Also what argparse would take for itself: --help, and options before the first argument.
        take: Callable[..., Any] = self._take_all
        parser.parse_known_args = take  # type: ignore[method-assign]

    def _take_all(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        run = functools.partial(_run, self._name)
        return argparse.Namespace(func=run, arguments=list(args or ())), []
