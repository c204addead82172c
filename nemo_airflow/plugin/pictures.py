"""Shows a job's config on its page, as a tree."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.config.views import outline
from nemo_airflow.config.views.differences import diff
from nemo_airflow.config.views.picture import TreeLine, to_mermaid, tree_lines
from nemo_airflow.exceptions import NemoAirflowError

_log = logging.getLogger(__name__)


def picture(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[Sequence[TreeLine], str]:
    """Returns the lines of a config's tree, marked where it differs from the other one, and its Mermaid flowchart.

    Both are empty where the config is not stored here: configs are in the worker's home folder, which the API server
    may not share.
    """
    versions = ConfigVersions()
    try:
        plan = versions.load(new["plan_digest"])
    except NemoAirflowError as error:
        _log.info("no picture of the config: %s", error)
        return [], ""
    if old is not None:
        try:
            found = diff(versions.load(old["plan_digest"]), plan)
            return tree_lines(found.new, found.changes), found.to_mermaid()
        except NemoAirflowError as error:
            _log.info("the other config is not in the picture: %s", error)
    return tree_lines(outline.of(plan)), to_mermaid(plan)
