"""What is raised where a plan or an override is wrong."""

from __future__ import annotations


class PlanError(ValueError):
    """A plan that is not valid.

    Args:
        message: What is wrong.
        path: Dotted path of the wrong node, empty for the root.
    """

    def __init__(self, message: str, path: str = "") -> None:
        self.message = message
        self.path = path
        super().__init__(f"{path}: {message}" if path else message)


class TargetNotAllowed(PlanError):
    """A plan names a target that the allow-list does not permit; it was not imported."""


class TargetNotFound(ImportError):
    """An allowed target does not exist: the job has no such module, or the module no such name."""
