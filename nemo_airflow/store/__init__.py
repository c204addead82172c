"""Keeps packages and outputs by digest: in a folder of this machine, and in a store that several machines share."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nemo_airflow.store.local import PackageStore

_EXPORTS = {"SharedStore": "shared", "configured_store": "address", "open_store": "address"}

__all__ = ["PackageStore", "SharedStore", "configured_store", "open_store"]

if TYPE_CHECKING:
    from nemo_airflow.store.address import configured_store, open_store
    from nemo_airflow.store.shared import SharedStore


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
