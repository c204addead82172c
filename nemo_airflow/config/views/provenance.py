"""Who set which value of a config, and where: Fiddle's history of each argument, by path, for people."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import fiddle as fdl
from fiddle import history as fiddle_history

from nemo_airflow.config.types import graph
from nemo_airflow.config.types.representation import value_text
from nemo_airflow.config.views import outline
from nemo_airflow.exceptions import UnknownParameterError
from nemo_airflow.language.plan.grammar import path_text

_CODE = "__fn_or_cls__"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One event in which a value of a config was set.

    Attributes:
        order: Grows with time, over all configs of the process.
        path: Dotted path of the value; for a target, the path of the config itself.
        kind: ``target``, ``value``, ``tags`` or ``deleted``.
        value: What it was set to, as one short line; empty when it was deleted.
        file: The file that set it; for an override, the override's own description.
        line: The line in it; 0 where there is none.
        function: The function in it, or empty.
    """

    order: int
    path: str
    kind: str
    value: str
    file: str
    line: int
    function: str

    @property
    def where(self) -> str:
        """``dags/train.py:12 in make``; files below the current folder are given from there."""
        file = self.file
        if os.path.isabs(file):
            nearer = os.path.relpath(file)
            file = file if nearer.startswith("..") else nearer
        line = f":{self.line}" if self.line else ""
        function = f" in {self.function}" if self.function not in ("", "<module>") else ""
        return f"{file}{line}{function}"


def history(config: Any, path: str | None = None) -> list[Setting]:
    """Returns all settings of a config, in the order of its paths; for one path, the newest first.

    A config in several places is listed at the first one.

    Args:
        config: The config.
        path: Only settings at this path and below it; all when None.

    Raises:
        UnknownParameterError: The path does not exist, and never did.
    """
    found: list[Setting] = []
    known: set[str] = set()
    for keys, value, _ in graph.iter_nodes(config):
        here = path_text(keys)
        known.add(here)
        if isinstance(value, fdl.Buildable):
            found += _settings(value, here)
    if path is None:
        return found
    chosen = [setting for setting in found if _is_at(setting.path, path)]
    if not chosen and path not in known:
        raise UnknownParameterError("the config has no such path, and nothing was ever set at it", path)
    return chosen


def history_text(config: Any, path: str | None = None) -> str:
    """Returns the history as lines: each value, where it was set, and its earlier values."""
    lines = []
    before: tuple[str, str] | None = None
    for setting in history(config, path):
        series = (setting.path, "value" if setting.kind == "deleted" else setting.kind)
        is_older = before == series
        before = series
        forms = {"target": f"{setting.value}(...)", "deleted": "not set", "tags": f"tags {setting.value}"}
        lead = "    before: " if is_older else f"{setting.path or '(the whole)'} = "
        lines.append(f"{lead}{forms.get(setting.kind, setting.value)}  # {setting.where}\n")
    return "".join(lines)


def _settings(config: Any, path: str) -> list[Setting]:
    kinds = {fiddle_history.ChangeKind.NEW_VALUE: "value", fiddle_history.ChangeKind.UPDATE_TAGS: "tags"}
    names = [_CODE, *(name for name, _ in graph.children(config) or ())]
    logged = config.__argument_history__
    names += [name for name in logged if name not in names]
    found = []
    made = logged[_CODE][-1] if logged.get(_CODE) else None
    for name in names:
        entries = sorted(logged.get(name, ()), key=lambda entry: (kinds[entry.kind], entry.sequence_id), reverse=True)
        if not entries and name in config.__arguments__ and made is not None:
            # Read from a plan together with its config.
            entries = [dataclasses.replace(made, param_name=name, new_value=config.__arguments__[name])]
        for entry in entries:
            kind = "target" if name == _CODE else kinds[entry.kind]
            if entry.new_value is fiddle_history.DELETED:
                kind = "deleted"
            where = entry.location
            below = path if name == _CODE else outline.join_key(path, name)
            found.append(
                Setting(
                    entry.sequence_id,
                    below,
                    kind,
                    _value(kind, entry.new_value),
                    where.filename,
                    where.line_number or 0,
                    where.function_name or "",
                )
            )
    return found


def _value(kind: str, value: Any) -> str:
    if kind == "deleted":
        return ""
    if kind == "target":
        return getattr(value, "__qualname__", None) or str(value)
    if kind == "tags":
        return ", ".join(sorted(tag.__qualname__ for tag in value)) or "none"
    return value_text(value)


def _is_at(path: str, wanted: str) -> bool:
    return path == wanted or wanted == "" or (path.startswith(wanted) and path[len(wanted)] in ".[")
