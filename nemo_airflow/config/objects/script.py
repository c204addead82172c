"""A script as the target of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.config.objects.buildable import Partial
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.runner import script


def Script(
    path: str | None = None,
    inline: str | None = None,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    entrypoint: str = "bash",
    m: bool = False,
) -> Partial[None]:
    """Returns the config of a script: a file of the package, a module, or a text.

    Args:
        path: The script, relative to the package's root; with ``m`` the name of a module.
        inline: The script's text, instead of ``path``. The first command that fails ends it, where ``entrypoint`` is
            a bare ``bash`` or ``sh``.
        args: The script's arguments, passed without a shell.
        env: Environment variables, besides the job's.
        entrypoint: The program that runs the script, with its options: ``bash``, ``python -u``.
        m: Whether to run ``entrypoint -m path``.

    Raises:
        ConfigError: Not exactly one of ``path`` and ``inline``, or ``m`` without ``path``.
        ParameterTypeError: A value is of the wrong type.
    """
    if (path is None) == (inline is None):
        raise ConfigError("a Script takes either path or inline: give exactly one of them")
    if m and path is None:
        raise ConfigError("m=True runs a module: give its name as path, and no inline")
    given: dict[str, Any] = {"path": path, "inline": inline, "args": args, "env": env, "entrypoint": entrypoint, "m": m}
    return Partial(script.run, **{name: value for name, value in given.items() if value not in (None, ())})
