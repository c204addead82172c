"""What to run: configs that are checked, written as plans, changed by overrides and shown as forms.

Everything is imported when it is first used: :mod:`nemo_airflow.config.plan` works without Fiddle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Config": "nemo_airflow.config.objects.buildable",
    "Partial": "nemo_airflow.config.objects.buildable",
    "Recipe": "nemo_airflow.config.objects.recipe",
    "Script": "nemo_airflow.config.objects.script",
    "autoconvert": "nemo_airflow.config.objects.conversion",
    "FormField": "nemo_airflow.config.views.form",
    "apply_overrides": "nemo_airflow.config.changes.overrides",
    "compose": "nemo_airflow.config.changes.composition",
    "build": "nemo_airflow.config.objects.validation",
    "diff": "nemo_airflow.config.views.differences",
    "form_fields": "nemo_airflow.config.views.form",
    "history": "nemo_airflow.config.views.provenance",
    "from_yaml": "nemo_airflow.config.texts.yaml_text",
    "iter_leaves": "nemo_airflow.config.objects.leaves",
    "map_leaves": "nemo_airflow.config.objects.leaves",
    "plan_from_yaml": "nemo_airflow.config.texts.yaml_text",
    "target_from_source": "nemo_airflow.config.source",
    "to_mermaid": "nemo_airflow.config.views.picture",
    "to_python": "nemo_airflow.config.views.python_code",
    "to_tree": "nemo_airflow.config.views.picture",
    "to_yaml": "nemo_airflow.config.texts.yaml_text",
    "validate": "nemo_airflow.config.objects.validation",
}

__all__ = [
    "Config",
    "FormField",
    "Partial",
    "Recipe",
    "Script",
    "apply_overrides",
    "autoconvert",
    "build",
    "compose",
    "diff",
    "form_fields",
    "from_yaml",
    "history",
    "iter_leaves",
    "map_leaves",
    "plan_from_yaml",
    "target_from_source",
    "to_mermaid",
    "to_python",
    "to_tree",
    "to_yaml",
    "validate",
]

if TYPE_CHECKING:
    from nemo_airflow.config.changes.composition import compose
    from nemo_airflow.config.changes.overrides import apply_overrides
    from nemo_airflow.config.objects.buildable import Config, Partial
    from nemo_airflow.config.objects.conversion import autoconvert
    from nemo_airflow.config.objects.leaves import iter_leaves, map_leaves
    from nemo_airflow.config.objects.recipe import Recipe
    from nemo_airflow.config.objects.script import Script
    from nemo_airflow.config.objects.validation import build, validate
    from nemo_airflow.config.source import target_from_source
    from nemo_airflow.config.texts.yaml_text import from_yaml, plan_from_yaml, to_yaml
    from nemo_airflow.config.views.differences import diff
    from nemo_airflow.config.views.form import FormField, form_fields
    from nemo_airflow.config.views.picture import to_mermaid, to_tree
    from nemo_airflow.config.views.provenance import history
    from nemo_airflow.config.views.python_code import to_python


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
