"""Keeps a patch with a secret apart: it goes nowhere but beside its package on this machine, or the task fails.

Masked it would be a patch that does not apply. Which texts are secrets, Airflow knows: passwords of connections that
were read, values of sensitive variables, and the secrets of the task's job.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from nemo_airflow import settings
from nemo_airflow.connections import find_secrets
from nemo_airflow.exceptions import PackagingError
from nemo_airflow.job import PATCH, Package
from nemo_airflow.store.local import PackageStore

_HEAD = re.compile(r'^diff --git .*? (?:"b/(.*)"|b/(.*))$', re.MULTILINE)


def keep_apart(package: Package, store: PackageStore, warn: Callable[[str], object]) -> Package:
    """Returns the package, without its patch where that holds a secret.

    Args:
        package: The package.
        store: Where it is, with its patch.
        warn: Takes a warning that names the files.

    Raises:
        PackagingError: There is a secret in it, and ``$NEMO_AIRFLOW_PATCH_WITH_SECRET`` is ``refuse``.
    """
    if not package.stored_patch:
        return package
    path = store.path(package.stored_patch, PATCH)
    names = files_with_secrets(path.read_bytes().decode("utf-8", "surrogateescape"))
    if not names:
        return package
    listed = ", ".join(names).encode("utf-8", "backslashreplace").decode()
    if settings.refuses_patch_with_secret():
        raise PackagingError(
            f"the uncommitted changes of {listed} hold a secret that Airflow knows: take it out and give it to the job "
            "as secrets={...}; or set NEMO_AIRFLOW_PATCH_WITH_SECRET=apart: the patch then stays on this machine"
        )
    warn(
        f"the uncommitted changes of {listed} hold a secret that Airflow knows: their patch is on this machine alone "
        f"({path}), neither in the shared store nor in the tracker; the code itself goes to the job as it is"
    )
    return dataclasses.replace(package, patch="", keeps_patch_apart=True)


def files_with_secrets(patch: str) -> list[str]:
    """Returns the names of the files in whose part of a patch a secret is, in the patch's order."""
    heads = [(match.start(), match[1] or match[2] or "") for match in _HEAD.finditer(patch)]
    names: list[str] = []
    for start, end in find_secrets(patch):
        within = [name for at, name in heads if start <= at < end]  # of several files: it is not known where
        names += within or [name for at, name in heads if at <= start][-1:] or ["a file"]
    return list(dict.fromkeys(names))
