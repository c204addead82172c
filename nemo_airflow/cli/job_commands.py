"""The options of the commands that run jobs and look at them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from nemo_airflow.cli.options import EXECUTOR, add_config, add_output, add_store_of_runs

_KEY = "the job's key, the beginning of it, its name (the newest of it), or 'last'"


def add(commands: Any) -> None:
    """Adds the commands to the command line."""
    run = commands.add_parser(
        "run",
        help="run a config on a back-end, follow its job, and track it as a task does",
        epilog="example: nemo-airflow run training:small lr=0.1 --executor 'kind: docker'",
    )
    add_config(run)
    run.add_argument("--executor", default="kind: local", help=f"{EXECUTOR} (%(default)s)")
    _add_packager(run)
    run.add_argument("--name", default="", help="the job's name (that of the config)")
    run.add_argument("--experiment", default="", help="the experiment in MLflow (the job's name)")
    run.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="a variable; may be repeated")
    run.add_argument(
        "--outputs", action="append", default=[], metavar="PATTERN", help="files to keep besides those in the output "
        "directory, such as '*.csv'; may be repeated",
    )  # fmt: skip
    run.add_argument("--no-track", action="store_false", dest="track", help="record no run in MLflow")
    run.add_argument("--detach", action="store_true", help="return once it is submitted, and print its key")
    run.add_argument(
        "--dry-run", action="store_true", help="only show the request, the package, and what changed since the last run"
    )
    _add_max_chain(run)
    add_store_of_runs(run)
    run.set_defaults(run=_run)

    package = commands.add_parser(
        "package",
        help="show what code would be shipped with a job, and why",
        epilog="example: nemo-airflow package training:small --packager 'kind: pattern'",
    )
    add_config(package, needed=False)
    package.add_argument("--executor", default="kind: local", help=f"{EXECUTOR} (%(default)s)")
    _add_packager(package)
    package.add_argument(
        "--limit", type=int, default=20, help="show so many files, the largest; 0 for all (%(default)s)"
    )
    add_output(package)
    package.set_defaults(run=_package)

    attach = commands.add_parser("attach", help="follow a launched job again, from its first line")
    attach.add_argument("key", help=_KEY)
    attach.add_argument("--quiet", action="store_true", help="do not print its lines")
    attach.set_defaults(run=_attach)

    logs = commands.add_parser("logs", help="print what a launched job has written")
    logs.add_argument("key", help=_KEY)
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    logs.add_argument("--executor", default="", help=f"where it runs, if a task submitted it: {EXECUTOR}")
    logs.add_argument("--rank", type=int, metavar="N", help="only what this process of a job of several has written")
    logs.set_defaults(run=_logs)

    metrics = commands.add_parser(
        "metrics",
        help="show the course of a job's metrics, with those of its machines and GPUs",
        epilog="example: nemo-airflow metrics last loss system/gpu",
    )
    metrics.add_argument("key", help=f"{_KEY}; or the id of a run in MLflow")
    metrics.add_argument("names", nargs="*", metavar="METRIC", help="only metrics whose names begin so")
    metrics.add_argument("--watch", action="store_true", help="show them again until the run ends")
    add_output(metrics)
    add_store_of_runs(metrics)
    metrics.set_defaults(run=_metrics)

    jobs = commands.add_parser("jobs", help="list jobs: those launched from this machine, and those that MLflow has")
    jobs.add_argument("--executor", default="", help=f"all jobs that run on its back-end instead: {EXECUTOR}")
    jobs.add_argument("--limit", type=int, default=20, help="list so many, the newest (%(default)s)")
    jobs.add_argument("--here", action="store_true", help="only those launched from this machine, not those in MLflow")
    add_output(jobs)
    add_store_of_runs(jobs)
    jobs.set_defaults(run=_jobs)

    _add_experiment(commands)
    _add_runs(commands)
    _add_reproduce(commands)
    _add_resume(commands)
    shell = commands.add_parser(
        "shell",
        help="run a shell, or a command, in the environment of a running job",
        epilog="example: nemo-airflow shell last -- nvidia-smi; the exit code is that of the command",
    )
    shell.add_argument("key", help=_KEY)
    shell.add_argument("command", nargs="*", metavar="-- COMMAND", help="the command with its arguments (a shell)")
    shell.add_argument("--executor", default="", help=f"where it runs, if a task submitted it: {EXECUTOR}")
    shell.set_defaults(run=_shell)

    for name, text in (
        ("status", "say how a job fares"),
        ("why", "say why a job waits or has failed, and what to do"),
        ("cancel", "cancel a job"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("key", help=_KEY)
        command.add_argument("--executor", default="", help=f"where it runs, if a task submitted it: {EXECUTOR}")
        if name != "cancel":
            add_output(command)
        command.set_defaults(run=_look, command=name)


def _add_experiment(commands: Any) -> None:
    experiment = commands.add_parser(
        "experiment",
        help="look at experiments, whose jobs run one after the other; go on with one, cancel it, run it again",
    )
    actions = experiment.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("list", "list the experiments that were run on this machine, the newest first"),
        ("status", "say how each job stands"),
        ("logs", "print what a job has written"),
        ("attach", "submit the jobs that wait, each in its turn, and follow all to their end"),
        ("cancel", "cancel a job, or all: those that wait are never submitted"),
        ("reset", "run it again from what is recorded: plans, packages and executors"),
    ):
        action = actions.add_parser(name, help=text)
        if name == "list":
            action.add_argument("--title", default="", help="only those of this title")
        else:
            action.add_argument(
                "experiment_id", metavar="experiment", help="the experiment's id, or its title (the newest of it)"
            )
        if name in ("logs", "cancel"):
            action.add_argument(
                "job", nargs=None if name == "logs" else "?", default="", help="the job's id, or its number, from 0"
            )
        if name == "logs":
            action.add_argument("--regex", default="", help="only lines in which this is found")
        if name in ("attach", "reset"):
            action.add_argument("--quiet", action="store_true", help="do not print the lines of jobs")
        if name == "reset":
            action.add_argument(
                "--detach", action="store_true", help="return at once; a process in the background runs it"
            )
        if name in ("list", "status"):
            add_output(action)
    experiment.set_defaults(run=_experiment)


def _add_runs(commands: Any) -> None:
    runs = commands.add_parser(
        "runs",
        help="list the runs that MLflow has: those that are looked for, with any metric or parameter as a column",
        epilog="example: nemo-airflow runs --dag train --since 7d --metric 'loss<0.1' --sort loss --columns loss,lr",
    )
    for name, text in (
        ("dag", "the DAG of their task"),
        ("task", "their task"),
        ("state", "how they ended: succeeded, failed, cancelled or lost; or running"),
        ("back-end", "the kind of their executor, such as slurm"),
        ("user", "who started them"),
        ("since", "they began then or later: 7d, 12h, 30m, or a date such as 2026-11-01"),
        ("until", "they began before then"),
    ):
        runs.add_argument(f"--{name}", default="", metavar=name.upper(), help=text)
    for name, metavar, text in (
        ("tag", "NAME=VALUE", "a tag; may be repeated"),
        ("config", "PATH=VALUE", "a value of the config; may be repeated"),
        ("metric", "COMPARISON", "what a metric must be, such as 'loss<0.1'; may be repeated"),
    ):
        runs.add_argument(f"--{name}", action="append", default=[], metavar=metavar, help=text)
    runs.add_argument(
        "--sort",
        default="-started",
        metavar="NAME",
        help="started, ended, name, dag, state, back-end, user, a metric, or params.PATH; with - the largest first: "
        "--sort=-accuracy (%(default)s)",
    )
    runs.add_argument("--columns", default="", metavar="NAMES", help="metrics and parameters to show, as loss,lr")
    runs.add_argument("--limit", type=int, default=20, help="list so many (%(default)s)")
    runs.add_argument("--page", default="", metavar="PAGE", help="the next page, as the page before has said it")
    add_output(runs)
    add_store_of_runs(runs)
    runs.set_defaults(run=_runs)


def _add_reproduce(commands: Any) -> None:
    reproduce = commands.add_parser(
        "reproduce",
        help="run a recorded run again, on any back-end, and report what came out the same",
        epilog="example: nemo-airflow reproduce KEY --on slurm --tolerance 1e-6; exit code 0: all is the same; 3: what "
        "came of it is; 4: that is not",
    )
    _add_recorded(reproduce, "changes: a variation of the run")
    reproduce.add_argument("--check", action="store_true", help="run nothing: only say what could be restored")
    reproduce.add_argument("--against", default="", metavar="RUN", help="run nothing: compare it with this other run")
    reproduce.add_argument(
        "--tolerance", type=float, default=0.0, metavar="SHARE", help="the relative difference up to which the last "
        "values of a metric are the same, such as 1e-6 (0: to the last digit)",
    )  # fmt: skip
    reproduce.add_argument(
        "--ignore", action="append", default=[], metavar="PATTERN", help="metrics and outputs to leave out, such as "
        "'*seconds'; may be repeated",
    )  # fmt: skip
    add_output(reproduce)
    reproduce.set_defaults(run=_reproduce)


def _add_resume(commands: Any) -> None:
    resume = commands.add_parser(
        "resume",
        help="run on what a run has left undone, from its newest checkpoint",
        epilog="example: nemo-airflow resume KEY --on slurm; the run in MLflow goes on, with changes it is a new one",
    )
    _add_recorded(resume, "changes, with which it is a new run")
    _add_max_chain(resume)
    resume.set_defaults(run=_resume)


def _add_max_chain(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--max-chain", type=int, default=20, metavar="N", help="how many attempts may follow each other, where one was "
        "preempted or has reached its time limit, and has a checkpoint (%(default)s)",
    )  # fmt: skip


def _add_recorded(command: argparse.ArgumentParser, changes: str) -> None:
    command.add_argument("key", metavar="run", help="the run's id in MLflow, or its job's key or the beginning of that")
    command.add_argument("overrides", nargs="*", metavar="path=value", help=changes)
    command.add_argument("--on", default="", metavar="EXECUTOR", help=f"where to run it (where it ran): {EXECUTOR}")
    command.add_argument(
        "--repository", action="append", default=[], metavar="FOLDER", dest="repositories",
        help="a repository with the run's code, besides the current folder; may be repeated",
    )  # fmt: skip
    add_store_of_runs(command)


def _add_packager(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--packager",
        default="auto",
        help="auto: the git repository here with all changes; none; or YAML such as 'kind: pattern' (%(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import run

    names = (
        "layers", "allow", "packager", "name", "experiment", "env", "outputs", "track", "tracking_uri", "conn_id",
        "detach", "dry_run", "max_chain",
    )  # fmt: skip
    return run.run(
        options.config, options.overrides, options.executor, **{name: getattr(options, name) for name in names}
    )


def _package(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import package

    how = {name: getattr(options, name) for name in ("layers", "allow", "limit", "output")}
    return package.run(options.config, options.overrides, options.packager, options.executor, **how)


def _attach(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import follow

    return follow.attach(options.key, quiet=options.quiet)


def _logs(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import follow

    return follow.logs(options.key, options.executor, follow=options.follow, rank=options.rank)


def _metrics(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import metrics

    where = {"tracking_uri": options.tracking_uri, "conn_id": options.conn_id}
    return metrics.run(options.key, options.names, watch=options.watch, output=options.output, **where)


def _jobs(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import jobs

    where = {"tracking_uri": options.tracking_uri, "conn_id": options.conn_id}
    return jobs.jobs(options.executor, limit=options.limit, output=options.output, here=options.here, **where)


def _experiment(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import experiment

    given = {name: value for name, value in vars(options).items() if name not in ("run", "action")}
    actions: dict[str, Callable[..., int]] = {
        "list": experiment.show_list,
        "status": experiment.status,
        "logs": experiment.logs,
        "attach": experiment.attach,
        "cancel": experiment.cancel,
        "reset": experiment.reset,
    }
    return actions[options.action](**given)


def _runs(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import runs

    return runs.run(
        runs.read_query(options),
        [name for name in map(str.strip, options.columns.split(",")) if name],
        **{name: getattr(options, name) for name in ("limit", "page", "output", "tracking_uri", "conn_id")},
    )


def _reproduce(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import reproduce

    names = (
        "on", "check", "against", "tolerance", "ignore", "repositories", "output", "tracking_uri", "conn_id",
    )  # fmt: skip
    return reproduce.run(options.key, options.overrides, **{name: getattr(options, name) for name in names})


def _resume(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import resume

    names = ("on", "max_chain", "repositories", "tracking_uri", "conn_id")
    return resume.run(options.key, options.overrides, **{name: getattr(options, name) for name in names})


def _shell(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import shell

    return shell.run(options.key, options.command, options.executor)


def _look(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import jobs

    if options.command == "cancel":
        return jobs.cancel(options.key, options.executor)
    show = jobs.status if options.command == "status" else jobs.why
    return show(options.key, options.executor, output=options.output)
