"""For tests: what runs tasks and configs in them, and the suite that every executor passes.

The fixtures ``run_task`` and ``run_config`` come with the installation, as a pytest plugin
(:mod:`nemo_airflow.testing.plugin`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["check_dags"]


def check_dags(folder: str | os.PathLike[str] = "dags") -> Mapping[str, str]:
    """Checks that every DAG file of a folder parses, and that each config in it is valid and can be rendered.

    Args:
        folder: The folder, or one DAG file.

    Returns:
        The digest of each config, by ``dag_id.task_id``. The config of a decorated or mapped task is made when the task
        runs, so it has none here.

    Raises:
        AssertionError: Something is wrong; the message has every fault with its place, a line each.
    """
    from nemo_airflow.validation.dag_files import examine_dags
    from nemo_airflow.validation.report import Report, existing_path

    report = Report()
    examine_dags(report, existing_path(os.fspath(folder)))
    if report.faults:
        raise AssertionError("\n".join(map(str, sorted(report.faults))))
    return {checked.name: checked.digest for checked in report.configs}
