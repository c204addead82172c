"""What to run: configs that are checked, written as plans, changed by overrides and shown as forms.

Everything is imported when it is first used: :mod:`nemo_airflow.config.plan` works without Fiddle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Config": "nemo_airflow.config.buildable",
    "Partial": "nemo_airflow.config.buildable",
    "Script": "nemo_airflow.config.script",
    "FormField": "nemo_airflow.config.form",
    "apply_overrides": "nemo_airflow.config.overrides",
    "build": "nemo_airflow.config.validation",
    "form_fields": "nemo_airflow.config.form",
    "from_yaml": "nemo_airflow.config.yaml_text",
    "iter_leaves": "nemo_airflow.config.leaves",
    "map_leaves": "nemo_airflow.config.leaves",
    "plan_from_yaml": "nemo_airflow.config.yaml_text",
    "to_yaml": "nemo_airflow.config.yaml_text",
    "validate": "nemo_airflow.config.validation",
}

__all__ = [
    "Config",
    "FormField",
    "Partial",
    "Script",
    "apply_overrides",
    "build",
    "form_fields",
    "from_yaml",
    "iter_leaves",
    "map_leaves",
    "plan_from_yaml",
    "to_yaml",
    "validate",
]

if TYPE_CHECKING:
    from nemo_airflow.config.buildable import Config, Partial
    from nemo_airflow.config.form import FormField, form_fields
    from nemo_airflow.config.leaves import iter_leaves, map_leaves
    from nemo_airflow.config.overrides import apply_overrides
    from nemo_airflow.config.script import Script
    from nemo_airflow.config.validation import build, validate
    from nemo_airflow.config.yaml_text import from_yaml, plan_from_yaml, to_yaml


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
