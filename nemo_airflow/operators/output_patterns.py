"""Refuses patterns of files to keep that cannot match, where they are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nemo_airflow.config.types.graph import is_deferred
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.runner.outputs import check_patterns


def check_outputs(outputs: Any) -> None:
    """Checks an operator's ``outputs``, but for what is known only when the task runs.

    Raises:
        ConfigError: It is not a list of patterns below the job's working directory.
    """
    if is_deferred(outputs):
        return
    known = outputs
    if isinstance(outputs, Iterable) and not isinstance(outputs, (str, bytes)):
        known = [pattern for pattern in outputs if not is_deferred(pattern)]
    try:
        check_patterns(known)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def patterns_of(outputs: Any) -> tuple[str, ...]:
    """Returns the patterns of a task that runs: nothing is a template any more.

    Raises:
        ConfigError: As for :func:`check_outputs`.
    """
    try:
        check_patterns(outputs)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None
    return tuple(outputs)
