"""The options of the commands that set this machine up, and show what it can do."""

from __future__ import annotations

import argparse
from typing import Any

from nemo_airflow.cli.options import EXECUTOR, add_output


def add(commands: Any) -> None:
    """Adds the commands to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="say what of this machine and of back-ends is not as jobs need it, and how to mend it",
        epilog="example: nemo-airflow doctor cluster.yaml; exit code 1 if something keeps jobs from running",
    )
    doctor.add_argument("targets", nargs="*", metavar="EXECUTOR", help=f"{EXECUTOR}; or the id of a connection")
    add_output(doctor)
    doctor.add_argument("--bundle", default="", metavar="FILE", help="also write a report without secrets, as JSON")
    doctor.set_defaults(run=_doctor)

    init = commands.add_parser(
        "init",
        help="write a new project that runs: a DAG, its code, a test, and a check for each commit",
        epilog="example: nemo-airflow init digits --template retrain",
    )
    init.add_argument("name", nargs="?", help="its name, and that of a new folder (the current folder, if it is empty)")
    init.add_argument("--template", default="train", help="train, sweep or retrain (%(default)s)")
    init.set_defaults(run=_init)

    demo = commands.add_parser("demo", help="run the example pipeline in a separate Airflow")
    demo.set_defaults(run=_demo)
    ui = commands.add_parser("ui", help="start the demo's Airflow and an MLflow page, until Ctrl-C")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow page (%(default)s)")
    ui.set_defaults(run=_ui)
    for command, port in ((demo, None), (ui, 8080)):
        command.add_argument(
            "--home", default=".demo", help="folder for its database, logs, jobs and runs (%(default)s)"
        )
        command.add_argument("--dags", help="folder of the DAGs (dags here, or else a copy of the example)")
        command.add_argument("--port", type=int, default=port, help=f"port of Airflow's page ({port or 'a free one'})")


def _doctor(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import doctor

    return doctor.run(options.targets, output=options.output, bundle=options.bundle)


def _init(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import init

    return init.run(options.name, options.template)


def _demo(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import demo

    return demo.run(options.home, options.dags, options.port)


def _ui(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import ui

    return ui.run(options.home, options.dags, options.port, options.mlflow_port)
