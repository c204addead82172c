"""The options of the commands that put versions of registered models into service, and back."""

from __future__ import annotations

import argparse
from typing import Any

from nemo_airflow.cli.options import add_output, add_store_of_runs


def add(commands: Any) -> None:
    """Adds the commands to the command line."""
    listing = commands.add_parser("promotions", help="list the promotions and rollbacks of a registered model")
    _add_model(listing)
    add_output(listing)
    listing.set_defaults(run=_promotions)

    promote = commands.add_parser(
        "promote",
        help="put a version of a registered model into service",
        epilog="example: nemo-airflow promote digits 7 --why 'knows the new scanner'",
    )
    _add_model(promote)
    promote.add_argument("version", help="its number in MLflow")
    promote.add_argument("--why", default="by hand", metavar="TEXT", help="the reason, for the record (%(default)s)")
    promote.add_argument("--again", action="store_true", help="also one that was rolled back")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser(
        "rollback",
        help="put back the version of a registered model that was in service before",
        epilog="example: nemo-airflow rollback digits --why 'confuses 4 and 9'",
    )
    _add_model(rollback)
    rollback.add_argument("--to", default="", metavar="VERSION", help="another version than the one before")
    rollback.add_argument("--why", default="by hand", metavar="TEXT", help="the reason, for the record (%(default)s)")
    rollback.set_defaults(run=_rollback)


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help="the model's name in MLflow's registry")
    command.add_argument("--alias", default="champion", help="the alias of the version in service (%(default)s)")
    add_store_of_runs(command)


def _promotions(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import promotions

    return promotions.show(_model(options), output=options.output)


def _promote(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import promotions

    return promotions.promote(_model(options), options.version, why=options.why, again=options.again)


def _rollback(options: argparse.Namespace) -> int:
    from nemo_airflow.cli import promotions

    return promotions.rollback(_model(options), to=options.to, why=options.why)


def _model(options: argparse.Namespace) -> Any:
    from nemo_airflow.cli.terminal import keep_output_clean
    from nemo_airflow.promotion import PromotedModel

    keep_output_clean()
    return PromotedModel(options.model, options.alias, conn_id=options.conn_id, tracking_uri=options.tracking_uri)
