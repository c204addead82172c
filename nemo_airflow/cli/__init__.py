"""The command line: ``nemo-airflow``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from nemo_airflow import __version__
from nemo_airflow.cli import job_commands
from nemo_airflow.cli.help import Parser, is_output_closed, leave_closed_pipe
from nemo_airflow.exceptions import NemoAirflowError

_EXECUTOR_HELP = (
    "an executor by its registered name, as YAML, 'kind: slurm\\nssh_conn_id: cluster', or a file with that YAML"
)


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

    plan = commands.add_parser("plan", help="print a config as YAML, or as the plan that a job gets")
    _add_config(plan)
    plan.add_argument("--json", action="store_true", help="print the plan, canonical JSON")
    plan.set_defaults(run=_plan)

    render = commands.add_parser("render", help="print the request that would be sent to a back-end for a config")
    _add_config(render)
    render.add_argument("--executor", default="kind: local", help=_EXECUTOR_HELP)
    render.set_defaults(run=_render)

    reap = commands.add_parser("reap", help="cancel the jobs of a back-end that no task of this Airflow waits for")
    reap.add_argument("executor", help=_EXECUTOR_HELP)
    reap.add_argument("--dry-run", action="store_true", help="only list them")
    reap.add_argument("--min-age", type=float, default=300, metavar="SECONDS", help="ignore younger jobs (%(default)s)")
    reap.add_argument("--folders", action="store_true", help="delete the folders of ended jobs instead")
    reap.add_argument(
        "--older-than",
        type=float,
        default=14,
        metavar="DAYS",
        help="only folders that were not written to for this long (%(default)s)",
    )
    reap.set_defaults(run=_reap)

    collect = commands.add_parser("collect", help="fetch the outputs of a job that its task could not keep")
    collect.add_argument("executor", help=_EXECUTOR_HELP)
    collect.add_argument("key", help="the job's key, as its task's log has it")
    collect.add_argument("--into", default="", metavar="FOLDER", help="a new folder for them (outputs-KEY)")
    collect.add_argument("--release", action="store_true", help="then let the back-end drop its own copy")
    collect.set_defaults(run=_collect)

    fetch = commands.add_parser("fetch", help="fetch an artifact of a run, a registered model or a bucket")
    fetch.add_argument("artifact", help="RUN_ID/NAME, models:/NAME@ALIAS, models:/NAME/VERSION or s3://bucket/path")
    fetch.add_argument("--into", default="", metavar="FOLDER", help="a folder for it (the current one)")
    _add_store_of_runs(fetch)
    fetch.set_defaults(run=_fetch)

    sync = commands.add_parser("sync", help="deliver what this machine keeps for tracking servers that did not take it")
    sync.add_argument("--all", action="store_true", dest="with_refused", help="also what a server refused for good")
    sync.add_argument("--dry-run", action="store_true", help="only list it")
    sync.set_defaults(run=_sync)

    listing = commands.add_parser("list", help="list recipes, executors, packagers and trackers by their names")
    listing.add_argument(
        "what", nargs="?", default="", help="list only this kind: recipes, executors, packagers or trackers"
    )
    listing.add_argument("--json", action="store_true", help="print them as JSON")
    listing.set_defaults(run=_list)

    job_commands.add(commands, _EXECUTOR_HELP, _add_config, _add_store_of_runs)
    _add_diff(commands)
    _add_store(commands)
    demo = commands.add_parser("demo", help="run the example pipeline in a separate Airflow")
    demo.set_defaults(run=_demo)
    ui = commands.add_parser("ui", help="start the demo's Airflow and an MLflow page, until Ctrl-C")
    ui.add_argument("--mlflow-port", type=int, default=5000, help="port of the MLflow page (%(default)s)")
    ui.set_defaults(run=_ui)
    for command, port in ((demo, None), (ui, 8080)):
        command.add_argument(
            "--home", default=".demo", help="folder for its database, logs, jobs and runs (%(default)s)"
        )
        command.add_argument("--dags", default="dags", help="folder of the DAGs (%(default)s)")
        command.add_argument("--port", type=int, default=port, help=f"port of Airflow's page ({port or 'a free one'})")
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "config", help="pkg.mod:name of a config or of a function that returns one, a YAML file, or a recipe's name"
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
    _add_allow(command)


def _add_allow(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PREFIX",
        help="what files and overrides may import, such as zoo.",
    )


def _add_diff(commands: Any) -> None:
    what = "pkg.mod:name, a YAML file, a plan as JSON, the digest of a config that was run, or run:ID of MLflow"
    overrides: Any = {"nargs": "*", "metavar": "path=value", "help": "overrides, such as model.hidden=64"}
    diff = commands.add_parser("diff", help="show the differences of two configs or runs; exit code 1 if there are any")
    diff.add_argument("old", help=f"{what}; or a folder, to compare its code")
    diff.add_argument("new", help="the same for the other side")
    diff.add_argument("--svg", default="", metavar="FILE", help="also draw the differences into this file")
    diff.add_argument("--json", action="store_true", help="print the differences as JSON")
    diff.add_argument(
        "--repository",
        action="append",
        default=[],
        metavar="FOLDER",
        dest="repositories",
        help="a repository with the code of runs, besides the current folder; may be repeated",
    )
    diff.set_defaults(run=_diff)
    graph = commands.add_parser("graph", help="draw a config")
    graph.add_argument("config", help=what)
    graph.add_argument("overrides", **overrides)
    graph.add_argument("--svg", required=True, metavar="FILE", help="the file to write")
    graph.set_defaults(run=_graph)
    code = commands.add_parser("code", help="print a config as the Python code that makes it")
    code.add_argument("config", help=what)
    code.add_argument("overrides", **overrides)
    code.add_argument("--by-name", action="store_true", help="write targets as texts, so that the code imports none")
    code.set_defaults(run=_code)
    for command in (diff, graph, code):
        _add_allow(command)
        _add_store_of_runs(command)
    history = commands.add_parser("history", help="show who set each value of a config, and where")
    _add_config(history)
    history.add_argument("--path", metavar="PATH", help="only this value and values below it")
    history.set_defaults(run=_history)


def _add_store_of_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--tracking-uri", metavar="URI", help="MLflow's address, instead of a tracker's default")
    command.add_argument("--conn-id", metavar="ID", help="an Airflow connection with MLflow's address and login")


def _diff(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    where = _where(options, options.repositories)
    return diff.run(options.old, options.new, svg=options.svg, as_json=options.json, where=where)


def _graph(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    return diff.draw(options.config, options.overrides, options.svg, _where(options))


def _code(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    return diff.write_code(options.config, options.overrides, _where(options), by_name=options.by_name)


def _history(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    return diff.show_history(
        options.config, options.overrides, options.path, layers=options.layers, allow=options.allow
    )


def _where(options: argparse.Namespace, repositories: Sequence[str] = ()) -> Any:
    from nemo_airflow.cli.diff import Where

    return Where(options.allow, options.tracking_uri, options.conn_id, repositories)


def _add_store(commands: Any) -> None:
    store = commands.add_parser("store", help="list, store, fetch and delete packages and outputs of the shared store")
    store.add_argument("--store", default="", metavar="URL", help="the store's address; default $NEMO_AIRFLOW_STORE")
    store.set_defaults(run=_store)
    verbs = store.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("ls", help="list packages, outputs and references")
    verbs.add_parser("put", help="store the files of a folder, and print their digest").add_argument("folder")
    get = verbs.add_parser("get", help="fetch outputs")
    get.add_argument("digest", help="the beginning of their digest")
    get.add_argument("folder")
    pin = verbs.add_parser("pin", help="protect an object from collection")
    pin.add_argument("digest", help="the beginning of its digest")
    pin.add_argument("name", help="name of the reference")
    verbs.add_parser("unpin", help="delete a reference").add_argument("name")
    gc = verbs.add_parser("gc", help="delete objects that no reference names and nobody wanted for long")
    gc.add_argument(
        "--older-than",
        type=float,
        default=30,
        metavar="DAYS",
        dest="days",
        help="only objects not wanted for this long (%(default)s)",
    )
    gc.add_argument("--dry-run", action="store_true", help="only list them")
    gc.add_argument(
        "--keep-runs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the packages, configs and outputs of all runs in MLflow stay (yes)",
    )
    _add_store_of_runs(gc)


def _store(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import store

    own = ("run", "store", "verb")
    verb: Any = getattr(store, options.verb)
    return int(verb(options.store, **{name: value for name, value in vars(options).items() if name not in own}))


def _plan(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import plan

    return plan.run(options.config, options.overrides, layers=options.layers, allow=options.allow, as_json=options.json)


def _render(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import render

    return render.run(options.config, options.overrides, options.executor, layers=options.layers, allow=options.allow)


def _list(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import listing

    return listing.run(options.what, as_json=options.json)


def _collect(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import collect

    return collect.run(options.executor, options.key, options.into, release=options.release)


def _fetch(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import fetch

    return fetch.run(options.artifact, options.into, options.tracking_uri or "", options.conn_id or "")


def _sync(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import sync

    return sync.run(with_refused=options.with_refused, dry_run=options.dry_run)


def _reap(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import reap

    return reap.run(
        options.executor,
        dry_run=options.dry_run,
        min_age=options.min_age,
        folders=options.folders,
        older_than=options.older_than,
    )


def _demo(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import demo

    return demo.run(options.home, options.dags, options.port)


def _ui(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import ui

    return ui.run(options.home, options.dags, options.port, options.mlflow_port)
