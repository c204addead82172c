"""Compares a job with another run's for its page: values, code, and a picture of the config."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from nemo_airflow.config.differences import diff
from nemo_airflow.config.picture import to_svg
from nemo_airflow.config.versions import ConfigVersions
from nemo_airflow.exceptions import NemoAirflowError

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Change:
    """One value that differs.

    Attributes:
        name: A path in the config, or ``commit``, ``package``, ``back-end``, ``config`` (its digest).
        old: The other run's value; empty if it has none.
        new: This run's value; empty if it has none.
    """

    name: str
    old: str
    new: str


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Returns the differences between two jobs' records, code and back-end first.

    Args:
        old: The operator's record of the other run's job.
        new: The operator's record of this job.
    """
    before, after = _facts(old), _facts(new)
    names = dict.fromkeys((*before, *after))
    found = [Change(name[1], before.get(name, ""), after.get(name, "")) for name in names]
    return [change for change in found if change.old != change.new]


def picture(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """Returns the config as SVG, with differences from the other one marked; empty where it is not stored here.

    Configs are in the worker's home folder, which the API server may not share.
    """
    versions = ConfigVersions()
    try:
        plan = versions.load(new["plan_digest"])
    except NemoAirflowError as error:
        _log.info("no picture of the config: %s", error)
        return ""
    if old is not None:
        try:
            return diff(versions.load(old["plan_digest"]), plan).to_svg()
        except NemoAirflowError as error:
            _log.info("the other config is not in the picture: %s", error)
    return to_svg(plan)


def _facts(record: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """Returns the compared values, by kind and name: a parameter may also be named ``commit``."""
    package = record.get("package") or {}
    handle = record.get("handle") or {}
    facts = {
        "commit": str(package.get("commit", "")),
        "package": str(package.get("digest", "")),
        "back-end": " ".join(filter(None, (handle.get("kind"), handle.get("cluster")))),
        # The record of a large config has only the first values; the digest shows differences in the others.
        "config": str(record.get("plan_digest", "")),
    }
    config = {("config", str(path)): str(value) for path, value in (record.get("config") or {}).items()}
    return {("job", name): value for name, value in facts.items() if value} | config
