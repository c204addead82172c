"""What to ship: packagers make an archive of code, named by its content, in a store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {"GitArchivePackager": "git", "PackageStore": "store", "Packager": "base"}

__all__ = [
    "GitArchivePackager",
    "PackageStore",
    "Packager",
]

if TYPE_CHECKING:
    from nemo_airflow.packaging.base import Packager
    from nemo_airflow.packaging.git import GitArchivePackager
    from nemo_airflow.packaging.store import PackageStore


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
