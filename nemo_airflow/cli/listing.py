"""Lists registered recipes, executors, packagers and trackers, reading their sources without importing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from nemo_airflow import __version__, packaging
from nemo_airflow.cli.output import JSON, print_json
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.registry import GROUP as EXECUTOR_KINDS
from nemo_airflow.registered import EXECUTORS, RECIPES, Registered, describe_entry, registered
from nemo_airflow.tracking.registry import GROUP as TRACKERS

_PACKAGERS = "nemo_airflow.packagers"
_INTERFACES = ("Packager", "ContentPackager")
_OURS = (f"nemo-airflow {__version__}",)

_GROUPS = {
    "recipes": (RECIPES,),
    "executors": (EXECUTORS, EXECUTOR_KINDS),
    "packagers": (_PACKAGERS,),
    "trackers": (TRACKERS,),
}


@dataclasses.dataclass(frozen=True)
class Listed:
    """One line of the list.

    Attributes:
        what: ``recipes``, ``executors``, ``packagers`` or ``trackers``.
        name: The name under which it is used; of a kind of executor, as ``kind: slurm``.
        target: ``pkg.mod:name`` of the object.
        origin: Name and version of the distribution.
        summary: The first line of its docstring, or empty.
        problem: Why it cannot be used, or empty.
    """

    what: str
    name: str
    target: str
    origin: str
    summary: str
    problem: str


def run(what: str, *, output: str) -> int:
    """Prints registered names.

    Raises:
        SettingsError: The kind is unknown.
    """
    if what and what not in _GROUPS:
        raise SettingsError(f"cannot list {what!r}: give one of {', '.join(_GROUPS)}")
    found = [listed for group in _GROUPS if what in ("", group) for listed in listing(group)]
    if output == JSON:
        print_json([dataclasses.asdict(listed) for listed in found])
        return 0
    for group in _GROUPS:
        if what in ("", group):
            _print(group, [listed for listed in found if listed.what == group])
    return 0


def listing(what: str) -> Iterator[Listed]:
    """Yields the registered names of a kind in order; broken ones with the reason."""
    for group in _GROUPS[what]:
        for name, entry in sorted({**_built_in(group), **registered(group)}.items()):
            summary, problem = describe_entry(entry)
            shown = f"kind: {name}" if group == EXECUTOR_KINDS else name
            yield Listed(what, shown, entry.value, ", ".join(entry.distributions), summary, problem)


def _built_in(group: str) -> dict[str, Registered]:
    if group == TRACKERS:
        return {"mlflow": Registered("mlflow", group, "nemo_airflow.tracking:MLflowTracker", _OURS)}
    if group != _PACKAGERS:
        return {}
    names = [name for name in packaging.__all__ if name.endswith("Packager") and name not in _INTERFACES]
    return {name: Registered(name, group, f"nemo_airflow.packaging:{name}", _OURS) for name in names}


def _print(what: str, found: list[Listed]) -> None:
    print(what)
    if not found:
        print("  none")
    rows = [(listed.name, listed.origin, listed.target) for listed in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for listed, row in zip(found, rows, strict=True):
        columns = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        note = f"broken: {listed.problem}" if listed.problem else listed.summary
        print(f"  {columns}  {note}".rstrip())
