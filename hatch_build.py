"""Puts the pages of Airflow's web UI into what is built: they are made from ``ui/``, and not committed."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def _pages() -> Any:
    spec = importlib.util.spec_from_file_location("nemo_airflow_pages", Path(__file__).parent / "ui" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class PagesHook(BuildHookInterface):
    """Builds the pages where they are missing or stale; ``NEMO_AIRFLOW_SKIP_PAGES=1`` leaves them out."""

    PLUGIN_NAME = "custom"

    @property
    def _is_due(self) -> bool:
        return os.environ.get("NEMO_AIRFLOW_SKIP_PAGES") != "1" and _pages().is_stale()

    def dependencies(self) -> list[str]:
        """Asks for Node.js only where it is needed and none is there."""
        return [_pages().NODE] if self._is_due and _pages().needs_node() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Builds them."""
        if self._is_due:
            _pages().build()
