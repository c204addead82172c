"""The options of the commands that keep what jobs made, and tidy up."""

from __future__ import annotations

import argparse
from typing import Any

from nemo_airflow.cli.options import EXECUTOR, add_output, add_store_of_runs


def add(commands: Any) -> None:
    """Adds the commands to the command line."""
    collect = commands.add_parser("collect", help="fetch the outputs of a job that its task could not keep")
    collect.add_argument("executor", help=EXECUTOR)
    collect.add_argument("key", help="the job's key, as its task's log has it")
    collect.add_argument("--into", default="", metavar="FOLDER", help="a new folder for them (outputs-KEY)")
    collect.add_argument("--release", action="store_true", help="then let the back-end drop its own copy")
    collect.set_defaults(run=_collect)

    fetch = commands.add_parser("fetch", help="fetch an artifact of a run, a registered model or a bucket")
    fetch.add_argument("artifact", help="RUN_ID/NAME, models:/NAME@ALIAS, models:/NAME/VERSION or s3://bucket/path")
    fetch.add_argument("--into", default="", metavar="FOLDER", help="a folder for it (the current one)")
    add_store_of_runs(fetch)
    fetch.set_defaults(run=_fetch)

    sync = commands.add_parser("sync", help="deliver what this machine keeps for tracking servers that did not take it")
    sync.add_argument("--all", action="store_true", dest="with_refused", help="also what a server refused for good")
    sync.add_argument("--dry-run", action="store_true", help="only list it")
    add_output(sync)
    sync.set_defaults(run=_sync)

    reap = commands.add_parser("reap", help="cancel the jobs of a back-end that no task of this Airflow waits for")
    reap.add_argument("executor", help=EXECUTOR)
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
    add_output(reap)
    reap.set_defaults(run=_reap)
    _add_store(commands)


def _add_store(commands: Any) -> None:
    store = commands.add_parser("store", help="list, store, fetch and delete packages and outputs of the shared store")
    store.add_argument("--store", default="", metavar="URL", help="the store's address; default $NEMO_AIRFLOW_STORE")
    store.set_defaults(run=_store)
    verbs = store.add_subparsers(dest="verb", required=True, metavar="VERB")
    add_output(verbs.add_parser("ls", help="list packages, outputs and references"))
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
    add_store_of_runs(gc)


def _collect(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import collect

    return collect.run(options.executor, options.key, options.into, release=options.release)


def _fetch(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import fetch

    return fetch.run(options.artifact, options.into, options.tracking_uri or "", options.conn_id or "")


def _sync(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import sync

    return sync.run(with_refused=options.with_refused, dry_run=options.dry_run, output=options.output)


def _reap(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import reap

    return reap.run(
        options.executor,
        dry_run=options.dry_run,
        min_age=options.min_age,
        folders=options.folders,
        older_than=options.older_than,
        output=options.output,
    )


def _store(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import store

    own = ("run", "store", "verb")
    verb: Any = getattr(store, options.verb)
    return int(verb(options.store, **{name: value for name, value in vars(options).items() if name not in own}))
