"""Options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

EXECUTOR = "an executor by its name or kind, as YAML, 'kind: slurm\\nssh_conn_id: cluster', or a file with that YAML"


def add_config(command: argparse.ArgumentParser, *, needed: bool = True) -> None:
    """Adds the config, its overrides and layers."""
    command.add_argument(
        "config",
        nargs=None if needed else "?",
        default="",
        help="pkg.mod:name of a config, of a function that returns one, or of one to run; a YAML file; or a recipe",
    )
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="path=value",
        help="overrides, such as model.hidden=64 or optimizer=adam(lr=0.1)",
    )
    command.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="FILE",
        dest="layers",
        help="a file or recipe to lay over the config; may be repeated",
    )
    add_allow(command)


def add_allow(command: argparse.ArgumentParser) -> None:
    """Adds what files and overrides may import."""
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PREFIX",
        help="what files and overrides may import, such as zoo.",
    )


def add_store_of_runs(command: argparse.ArgumentParser) -> None:
    """Adds where MLflow is."""
    command.add_argument("--tracking-uri", metavar="URI", help="MLflow's address, instead of a tracker's default")
    command.add_argument("--conn-id", metavar="ID", help="an Airflow connection with MLflow's address and login")


def add_output(command: argparse.ArgumentParser, forms: Sequence[str] = ("text", "json")) -> None:
    """Adds how to print what is found, the first of these forms if not told; ``--json`` is short for JSON."""
    command.add_argument("-o", "--output", choices=forms, default=forms[0], help=f"how to print it ({forms[0]})")
    if "json" not in forms:
        return
    command.add_argument("--json", action="store_const", const="json", dest="output", help=argparse.SUPPRESS)
