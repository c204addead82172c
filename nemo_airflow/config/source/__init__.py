"""Targets read from their source: names, types, defaults and docstrings of code that is not imported.

The stand-in from :func:`target_from_source` replaces a function or class wherever a config takes one:
it has the same name, signature and docstring, and is checked and written into a plan in the same way.
"""

from __future__ import annotations

from nemo_airflow.config.source.modules import Source, packages_in, source_at
from nemo_airflow.config.source.targets import SourceFunction, target_from_source

__all__ = ["Source", "SourceFunction", "packages_in", "source_at", "target_from_source"]
