"""Where jobs run: one module a back-end, all on the interface in ``base``.

Third parties register an executor under its ``kind`` in the entry-point group
``nemo_airflow.executors``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Chunk": "base",
    "Cursor": "base",
    "Executor": "base",
    "Request": "base",
    "Session": "base",
    "parse_time": "base",
    "LocalExecutor": "local",
    "executor_from_json": "registry",
}

__all__ = [
    "Chunk",
    "Cursor",
    "Executor",
    "LocalExecutor",
    "Request",
    "Session",
    "executor_from_json",
    "parse_time",
]

if TYPE_CHECKING:
    from nemo_airflow.executors.base import Chunk, Cursor, Executor, Request, Session, parse_time
    from nemo_airflow.executors.local import LocalExecutor
    from nemo_airflow.executors.registry import executor_from_json


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
