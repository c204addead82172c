"""Draws a job's config for its page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from nemo_airflow.config.differences import diff
from nemo_airflow.config.picture import to_svg
from nemo_airflow.config.versions import ConfigVersions
from nemo_airflow.exceptions import NemoAirflowError

_log = logging.getLogger(__name__)


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
