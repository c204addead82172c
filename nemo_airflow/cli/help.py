"""The help of the command line: commands grouped by what one wants, and the nearest word for a wrong one."""

from __future__ import annotations

import argparse
import os
import select
import sys
from typing import NoReturn

from nemo_airflow.language.nearest import similar

GROUPS = {
    "Run": ("run", "experiment", "reproduce", "resume", "attach", "cancel", "package", "render", "plan", "validate"),
    "Look": ("jobs", "runs", "status", "why", "logs", "metrics", "shell", "list"),
    "Compare": ("diff", "lineage", "why-not-reused", "graph", "code", "history"),
    "Keep": ("collect", "fetch", "sync", "store"),
    "Models": ("promotions", "promote", "rollback"),
    "Tidy": ("reap",),
    "Set up": ("init", "doctor", "settings", "demo", "ui"),
}
"""Every command is in one of them; a test looks."""


class Parser(argparse.ArgumentParser):
    """Groups its commands in its help, and names the command nearest to a wrong one."""

    def format_help(self) -> str:
        """Returns the help."""
        commands = self._commands()
        if commands is None or not {name for names in GROUPS.values() for name in names} >= set(commands.choices):
            return super().format_help()
        lines = [f"usage: {self.prog} COMMAND ...", "", self.description or "", ""]
        helps = {action.dest: action.help or "" for action in commands._choices_actions}
        width = max(map(len, helps))
        for group, names in GROUPS.items():
            lines += [f"{group}:", *(f"  {name:{width}}  {helps[name]}" for name in names), ""]
        lines += [
            "exit codes: 0 done, 1 the job or the comparison says no, 2 wrong arguments or an error, 130 Ctrl-C",
            f"'{self.prog} COMMAND --help' explains each; '{self.prog} --version' prints the version",
        ]
        return "\n".join(lines) + "\n"

    def error(self, message: str) -> NoReturn:
        """Ends the program with the error, the nearest command, and what to run next."""
        commands = self._commands()
        if commands is not None and "invalid choice" in message:
            word = message.partition("invalid choice: ")[2].split(" ")[0].strip("'\"")
            self.exit(
                2,
                f"{self.prog}: {word!r} is not a command{similar(word, commands.choices)}; '{self.prog} --help' lists "
                "them\n",
            )
        self.exit(2, f"{self.prog}: {message}; '{self.prog} --help' says how to write it\n")

    def _commands(self) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
        actions = self._subparsers._group_actions if self._subparsers is not None else []
        return next((action for action in actions if isinstance(action, argparse._SubParsersAction)), None)


def is_output_closed() -> bool:
    """Returns whether whoever read the output has gone: other pipes break, too, as those of connections."""
    poller = select.poll()  # a flush tells nothing where nothing is left to write, as with PYTHONUNBUFFERED
    poller.register(sys.stdout.fileno(), 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))


def leave_closed_pipe() -> int:
    """Ends quietly where whoever read the output has gone, as ``head`` does; returns the exit code of that."""
    # Python would flush into the pipe once more at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + 13
