"""Lists what was promoted and rolled back of a registered model, promotes a version, and rolls back."""

from __future__ import annotations

import dataclasses

from nemo_airflow.cli.output import JSON, print_json, print_table, time_text
from nemo_airflow.promotion import Change, PromotedModel


def show(model: PromotedModel, *, output: str) -> int:
    """Prints the changes of the model's alias, the newest first; returns 0.

    Raises:
        RegistryError: There is no such model.
    """
    changes = model.changes()[::-1]
    if output == JSON:
        print_json([dataclasses.asdict(change) for change in changes])
        return 0
    current = model.current()
    print(f"{model.name}@{model.alias}: {f'version {current.version}' if current else 'no version'}")
    if changes:
        print_table(
            ("WHEN", "WHAT", "VERSION", "BEFORE", "BY", "WHY"),
            [
                (time_text(change.at), change.kind, change.version, change.before, change.by, change.why)
                for change in changes
            ],
        )
    return 0


def promote(model: PromotedModel, version: str, *, why: str, again: bool) -> int:
    """Puts a version into service; returns 0.

    Raises:
        RegistryError: There is no such version, or it was rolled back.
    """
    return _say(model, model.promote(version, why=why, again=again))


def rollback(model: PromotedModel, *, to: str, why: str) -> int:
    """Puts back an earlier version; returns 0.

    Raises:
        RegistryError: There is none to go back to.
    """
    return _say(model, model.rollback(to=to, why=why))


def _say(model: PromotedModel, change: Change) -> int:
    before = f", which was version {change.before}" if change.before else ""
    print(f"{model.name}@{model.alias} is version {change.version}{before}")
    return 0
