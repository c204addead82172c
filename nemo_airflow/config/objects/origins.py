"""Where changes of a config come from: what they may import and read, and how its history shows them."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import fiddle as fdl
from fiddle import history

from nemo_airflow.language.overrides.coded import no_files

_OUR_OWN = f"{Path(__file__).parents[2]}{os.sep}"


@dataclasses.dataclass
class Granted:
    """Targets and configs that registered recipes added to a change; they need no allow entry.

    Attributes:
        names: Targets that the job calls.
        configs: Configs that recipes have made here.
    """

    names: set[str] = dataclasses.field(default_factory=set)
    configs: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where changes come from.

    Attributes:
        name: For errors and for the history: ``the command line``, ``the run's conf``.
        allow: What may be imported for a change besides registered recipes: exact names, or prefixes that end with
            a dot.
        folder: What the paths of files are relative to; None where no files may be read, since
            who makes the changes may not see the files of this machine.
        code: The line of code that makes the changes, or None where they do not come from code.
        granted: What the changes added through names of recipes.
    """

    name: str
    allow: tuple[str, ...] = ()
    folder: Path | None = None
    code: history.Location | None = None
    granted: Granted = dataclasses.field(default_factory=Granted, compare=False)

    def no_files(self, path: str) -> str:
        """Returns the error message for a file that may not be read."""
        return no_files(path, self.name)


@dataclasses.dataclass(frozen=True)
class ChangeLocation(history.Location):  # type: ignore[misc]  # Fiddle has no types
    """The location in Fiddle's history of a value that a change has set.

    Attributes:
        change: The change. Where no line of code made it, ``filename`` has the change too, and the line is 0.
    """

    change: str = ""

    def format(self, max_filename_parts: int | None = None) -> str:
        """Returns who set the value."""
        if not self.line_number:
            return f"set by {self.filename}"
        return f"set by {self.change} at {super().format(max_filename_parts)}"


def location_of(change: str, origin: Origin) -> ChangeLocation:
    """Returns the history location for values that a change sets.

    Args:
        change: The change as it was written, such as ``override 'model.hidden=64'``.
        origin: Where it comes from.
    """
    if origin.code is None:
        return ChangeLocation(f"{change} from {origin.name}", 0, None, change)
    code = origin.code
    return ChangeLocation(code.filename, code.line_number, code.function_name, change)


def find_caller() -> history.Location:
    """Returns the line of code outside nemo_airflow that called it."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OUR_OWN):
        frame = frame.f_back
    return history.Location(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def set_argument(config: Any, key: str | int, value: Any, location: history.Location) -> None:
    """Sets an argument of a config that was already checked, with its whole path.

    Args:
        config: The config.
        key: The argument's name, or position.
        value: The argument.
        location: Who set it, for the config's history.
    """
    fdl.Buildable._arguments_set_value(config, key, value)
    _note(config, key, location)


def remove_argument(config: Any, key: str | int, location: history.Location) -> None:
    """Removes an argument of a config, which then has its default again."""
    fdl.Buildable._arguments_del_value(config, key)
    _note(config, key, location)


def set_target(config: Any, target: Any, location: history.Location) -> None:
    """Gives a config another target that takes the same arguments."""
    object.__setattr__(config, "__fn_or_cls__", target)
    config.__argument_history__.add_new_value("__fn_or_cls__", target)
    _note(config, "__fn_or_cls__", location)


def note_arguments(config: Any, location: history.Location) -> None:
    """Records in the history of a new config who set its arguments, where nothing is recorded."""
    for key, value in config.__arguments__.items():
        if not config.__argument_history__.get(key):
            config.__argument_history__.add_new_value(key, value)
            _note(config, key, location)
    _note(config, "__fn_or_cls__", location)


def _note(config: Any, key: str | int, location: history.Location) -> None:
    entries = config.__argument_history__.get(key)
    if entries and history.tracking_enabled():
        entries[-1] = dataclasses.replace(entries[-1], location=location)
