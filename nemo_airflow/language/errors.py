"""What is raised where a config, an override or a plan is wrong: the same errors in a job as outside."""

from __future__ import annotations


class NemoAirflowError(Exception):
    """Base class of all errors of this project."""


class ConfigError(NemoAirflowError, ValueError):
    """A config is wrong.

    Args:
        message: What is wrong, and what to change.
        path: Dotted path of the wrong node from the config's root, for example ``model.hidden``.
            Empty when the root itself, or no single node, is at fault.
    """

    def __init__(self, message: str, path: str = "") -> None:
        self.message = message
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class UnknownParameterError(ConfigError):
    """The target has no parameter of that name; the message lists the nearest names."""


class MissingParameterError(ConfigError):
    """A parameter without a default was not given."""


class ParameterTypeError(ConfigError):
    """A value does not fit the annotation of its parameter."""


class OverrideError(ConfigError):
    """An override names a path that is not in the config, or is not well formed."""

    @property
    def summary(self) -> str:
        """The message without the lines that show the place in the override."""
        return self.message.partition("\n")[0]


class TargetNotImportableError(ConfigError):
    """A job could not import this function or class: a lambda, a closure, one of ``__main__`` ..."""


class TargetNotAllowedError(ConfigError):
    """A plan names a target that is not in the allow-list; nothing was imported."""


class PlanError(ConfigError):
    """A plan, or a YAML file that should hold one, is not valid."""


def error_at(message: str, text: str, column: int) -> OverrideError:
    """Returns an error about a place in an override, with a caret below it.

    Args:
        message: What is wrong, and what was expected, in one line.
        text: The override.
        column: The place, from 0.
    """
    return OverrideError(f"{message}\n{excerpt(text, column)}" if text else message)


def excerpt(text: str, column: int) -> str:
    """Returns the part of a text around a column, and a line below with a caret under the column."""
    width, indent = 80, "    "
    start = max(0, min(column - width // 2, len(text) - width))
    shown = "".join(c if c.isprintable() else " " for c in text[start : start + width])
    before, after = ("..." if start else ""), ("..." if start + width < len(text) else "")
    return f"{indent}{before}{shown}{after}\n{indent}{' ' * (len(before) + column - start)}^"
