"""The command line: ``nemo-airflow``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from nemo_airflow import __version__
from nemo_airflow.exceptions import NemoAirflowError

_EXECUTOR_HELP = "an executor as YAML, 'kind: slurm\\nssh_conn_id: cluster', or a file with that"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 1 when what it ran failed, 2 when it was asked wrongly."""
    options = _parser().parse_args(argv)
    try:
        return int(options.run(options))
    except NemoAirflowError as error:
        sys.stderr.write(f"nemo-airflow: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nemo-airflow", description="Run machine-learning experiments from Apache Airflow."
    )
    parser.add_argument("--version", action="version", version=f"nemo-airflow {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    plan = commands.add_parser("plan", help="print a config as YAML, or as the plan that a job gets")
    plan.add_argument("config", help="a config, or a function that returns one, as pkg.mod:name")
    plan.add_argument("overrides", nargs="*", metavar="path=value", help="overrides, as model.hidden=64")
    plan.add_argument("--json", action="store_true", help="print the plan, canonical JSON")
    plan.set_defaults(run=_plan)

    render = commands.add_parser("render", help="print exactly what would be sent to a back-end for a config")
    render.add_argument("config", help="a config, or a function that returns one, as pkg.mod:name")
    render.add_argument("overrides", nargs="*", metavar="path=value", help="overrides, as model.hidden=64")
    render.add_argument("--executor", default="kind: local", help=_EXECUTOR_HELP)
    render.set_defaults(run=_render)

    reap = commands.add_parser("reap", help="end the jobs of a back-end that no task of this Airflow waits for")
    reap.add_argument("executor", help=_EXECUTOR_HELP)
    reap.add_argument("--dry-run", action="store_true", help="only show them")
    reap.add_argument("--min-age", type=float, default=300, metavar="SECONDS", help="let younger ones be (%(default)s)")
    reap.set_defaults(run=_reap)

    demo = commands.add_parser("demo", help="run the example pipeline in an Airflow of its own")
    demo.set_defaults(run=_demo)
    ui = commands.add_parser("ui", help="start that Airflow and an MLflow page, until Ctrl-C")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow page (%(default)s)")
    ui.set_defaults(run=_ui)
    for command, port in ((demo, None), (ui, 8080)):
        command.add_argument(
            "--home", default=".demo", help="folder of its database, logs, jobs and runs (%(default)s)"
        )
        command.add_argument("--dags", default="dags", help="folder of the DAGs (%(default)s)")
        command.add_argument("--port", type=int, default=port, help=f"port of Airflow's page ({port or 'a free one'})")
    return parser


def _plan(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import plan

    return plan.run(options.config, options.overrides, as_json=options.json)


def _render(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import render

    return render.run(options.config, options.overrides, options.executor)


def _reap(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import reap

    return reap.run(options.executor, dry_run=options.dry_run, min_age=options.min_age)


def _demo(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import demo

    return demo.run(options.home, options.dags, options.port)


def _ui(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import ui

    return ui.run(options.home, options.dags, options.port, options.mlflow_port)
