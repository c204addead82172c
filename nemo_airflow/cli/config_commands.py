"""The options of the commands that show configs and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from nemo_airflow.cli.options import EXECUTOR, add_allow, add_config, add_output, add_store_of_runs
from nemo_airflow.exceptions import SettingsError


def add(commands: Any) -> None:
    """Adds the commands to the command line."""
    plan = commands.add_parser("plan", help="print a config as YAML, or as the plan that a job gets")
    add_config(plan)
    add_output(plan)
    plan.set_defaults(run=_plan)

    render = commands.add_parser("render", help="print the request that would be sent to a back-end for a config")
    add_config(render)
    render.add_argument("--executor", default="kind: local", help=EXECUTOR)
    add_output(render)
    render.set_defaults(run=_render)

    listing = commands.add_parser("list", help="list recipes, executors, packagers and trackers by their names")
    listing.add_argument(
        "what", nargs="?", default="", help="list only this kind: recipes, executors, packagers or trackers"
    )
    add_output(listing)
    listing.set_defaults(run=_list)

    validate = commands.add_parser(
        "validate",
        help="find every fault of DAG files, configs and executors, each with its place, before anything runs",
        epilog="example: nemo-airflow validate dags --since origin/main -o markdown; exit code 1 if there is a fault",
    )
    validate.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="a DAG file or a folder of them, pkg.mod:name of a config, a file of a config or executor, a recipe",
    )
    validate.add_argument(
        "--since", default="", metavar="REV", help="say which configs, packages and DAG versions changed since then"
    )
    validate.add_argument(
        "-o", "--output", choices=("text", "json", "markdown"), default="text", help="how to print it (%(default)s)"
    )
    add_allow(validate)
    validate.set_defaults(run=_validate)
    _add_comparisons(commands)


def _add_comparisons(commands: Any) -> None:
    what = "pkg.mod:name, a YAML file, a plan as JSON, the digest of a config that was run, or run:ID of MLflow"
    overrides: Any = {"nargs": "*", "metavar": "path=value", "help": "overrides, such as model.hidden=64"}
    diff = commands.add_parser("diff", help="show the differences of two configs or runs; exit code 1 if there are any")
    diff.add_argument("old", nargs="?", default="", help=f"{what}; or a folder, to compare its code")
    diff.add_argument("new", nargs="?", default="", help="the same for the other side")
    diff.add_argument(
        "--last-good", default="", metavar="RUN", help="instead: a run with the newest before it that succeeded"
    )
    add_output(diff, ("text", "tree", "mermaid", "json"))
    diff.add_argument(
        "--repository",
        action="append",
        default=[],
        metavar="FOLDER",
        dest="repositories",
        help="a repository with the code of runs, besides the current folder; may be repeated",
    )
    diff.set_defaults(run=_diff)
    graph = commands.add_parser("graph", help="show a config as a tree, or as a flowchart for documents")
    graph.add_argument("config", help=what)
    graph.add_argument("overrides", **overrides)
    add_output(graph, ("tree", "mermaid"))
    graph.set_defaults(run=_graph)
    code = commands.add_parser("code", help="print a config as the Python code that makes it")
    code.add_argument("config", help=what)
    code.add_argument("overrides", **overrides)
    code.add_argument("--by-name", action="store_true", help="write targets as texts, so that the code imports none")
    code.set_defaults(run=_code)
    for command in (diff, graph, code):
        add_allow(command)
        add_store_of_runs(command)
    _add_lineage(commands)
    _add_why_not_reused(commands)
    history = commands.add_parser("history", help="show who set each value of a config, and where")
    add_config(history)
    history.add_argument("--path", metavar="PATH", help="only this value and values below it")
    add_output(history)
    history.set_defaults(run=_history)


def _add_lineage(commands: Any) -> None:
    lineage = commands.add_parser(
        "lineage",
        help="show what a run, a model or an artifact was made from, and what was made from it",
        epilog="example: nemo-airflow lineage models:/digits@champion -o mermaid",
    )
    lineage.add_argument("what", help="a run's id, a job's key, models:/NAME@ALIAS, models:/NAME/VERSION, or a digest")
    lineage.add_argument("--up", action="store_true", help="only what it was made from")
    lineage.add_argument("--down", action="store_true", help="only what was made from it")
    lineage.add_argument("--depth", type=int, default=10, help="follow so many runs (%(default)s)")
    add_output(lineage, ("text", "json", "mermaid"))
    add_store_of_runs(lineage)
    lineage.set_defaults(run=_lineage)


def _plan(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import plan

    how = {"layers": options.layers, "allow": options.allow, "output": options.output}
    return plan.run(options.config, options.overrides, **how)


def _render(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import render

    how = {"layers": options.layers, "allow": options.allow, "output": options.output}
    return render.run(options.config, options.overrides, options.executor, **how)


def _validate(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import validate

    return validate.run(options.paths, allow=options.allow, since=options.since, output=options.output)


def _list(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import listing

    return listing.run(options.what, output=options.output)


def _diff(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    if bool(options.last_good) == bool(options.new) or bool(options.old) != bool(options.new):
        raise SettingsError("diff compares two: give OLD and NEW, or --last-good RUN")
    where = _where(options, options.repositories)
    return diff.run(options.old, options.new or options.last_good, output=options.output, where=where)


def _graph(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    return diff.draw(options.config, options.overrides, options.output, _where(options))


def _code(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    return diff.write_code(options.config, options.overrides, _where(options), by_name=options.by_name)


def _add_why_not_reused(commands: Any) -> None:
    command = commands.add_parser(
        "why-not-reused",
        help="say what the nearest earlier run did not have in common with a run",
        epilog="example: nemo-airflow why-not-reused train-3f2a",
    )
    command.add_argument("what", metavar="KEY_OR_RUN", help="a job's key, the beginning of it, or the id of a run")
    add_output(command)
    add_store_of_runs(command)
    command.set_defaults(run=_why_not_reused)


def _why_not_reused(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import why_not_reused

    names = ("output", "tracking_uri", "conn_id")
    return why_not_reused.run(options.what, **{name: getattr(options, name) for name in names})


def _lineage(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import lineage

    names = ("up", "down", "depth", "output", "tracking_uri", "conn_id")
    return lineage.run(options.what, **{name: getattr(options, name) for name in names})


def _history(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import diff

    how = {"layers": options.layers, "allow": options.allow, "output": options.output}
    return diff.show_history(options.config, options.overrides, options.path, **how)


def _where(options: argparse.Namespace, repositories: Sequence[str] = ()) -> Any:
    from nemo_airflow.cli.diff import Where

    return Where(options.allow, options.tracking_uri, options.conn_id, repositories)
