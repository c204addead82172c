"""Prints each setting, its value, and where that comes from."""

from __future__ import annotations

import json
import re
from typing import Any

from nemo_airflow.options import OPTIONS, Option, read_option

_PASSWORD = re.compile("://[^/@]*:[^/]*@")


def add(commands: Any) -> None:
    """Adds the command."""
    command = commands.add_parser(
        "settings",
        help="print each setting, its value, and where that comes from",
        description="Print each setting of [nemo_airflow], its value, and its source, the first of: "
        "$NEMO_AIRFLOW_<NAME>, $AIRFLOW__NEMO_AIRFLOW__<NAME>, airflow.cfg, the default.",
        epilog="example: nemo-airflow settings -o json",
    )
    command.add_argument(
        "-o",
        "--output",
        choices=("text", "json", "markdown"),
        default="text",
        help="how to print them; markdown is the table of the documentation, without values (%(default)s)",
    )
    command.set_defaults(run=lambda options: run(options.output))


def run(output: str) -> int:
    """Prints the settings; returns 0.

    Args:
        output: ``text``, ``json`` or ``markdown``.
    """
    from nemo_airflow.tracking.mlflow.address import hide_login

    if output == "markdown":
        print(_table())
        return 0
    found = {name: read_option(name) for name in OPTIONS}
    # In s3://conn_id@bucket the part before the @ is no secret; a password comes after a colon.
    shown = {name: hide_login(read.text) if _PASSWORD.search(read.text) else read.text for name, read in found.items()}
    if output == "json":
        rows = {name: {"value": shown[name], "source": read.source} for name, read in found.items()}
        print(json.dumps(rows, indent=2))
        return 0
    width = max(map(len, OPTIONS))
    for name, read in found.items():
        print(f"{name:{width}}  {shown[name] or '-'}  ({read.source})")
    return 0


def _table() -> str:
    """Returns the settings as a table in Markdown."""
    rows = ["| option | default | example | what it does |", "|---|---|---|---|"]
    return "\n".join([*rows, *(_row(option) for option in OPTIONS.values())])


def _row(option: Option) -> str:
    default = f"`{option.default}`" if option.default else ""
    return f"| `{option.name}` | {default} | `{option.example}` | {option.description} |"
