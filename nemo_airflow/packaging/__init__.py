"""What to ship: packagers make an archive of code, named by its content, in a store."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nemo_airflow.store.local import PackageStore

_EXPORTS = {
    "ContentPackager": "base",
    "DistributionPackager": "distribution",
    "GitArchivePackager": "git.packager",
    "HybridPackager": "hybrid",
    "Packager": "base",
    "PatternPackager": "pattern",
}

__all__ = [
    "ContentPackager",
    "DistributionPackager",
    "GitArchivePackager",
    "HybridPackager",
    "PackageStore",
    "Packager",
    "PatternPackager",
]

if TYPE_CHECKING:
    from nemo_airflow.packaging.base import ContentPackager, Packager
    from nemo_airflow.packaging.distribution import DistributionPackager
    from nemo_airflow.packaging.git.packager import GitArchivePackager
    from nemo_airflow.packaging.hybrid import HybridPackager
    from nemo_airflow.packaging.pattern import PatternPackager


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
