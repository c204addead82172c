"""How many machines a job takes, and how many GPUs of each, as its executor asks for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json


@dataclasses.dataclass(frozen=True)
class Machines:
    """What a job takes.

    Attributes:
        nodes: Its machines; of a heterogeneous job of Slurm those of all its components.
        gpus: The GPUs of all of them, as far as the executor says.
    """

    nodes: int = 1
    gpus: int = 0

    def to_json(self) -> dict[str, int]:
        """Returns the value as plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: object) -> Machines | None:
        """The inverse of :meth:`to_json`; None for anything else, such as the record of an earlier release."""
        if not isinstance(data, Mapping) or not all(isinstance(data.get(name), int) for name in ("nodes", "gpus")):
            return None
        return cls(data["nodes"], data["gpus"])


def machines_of(executor: Executor) -> Machines:
    """Returns what a job of an executor takes."""
    try:
        each = executor.gpu_count
    except NemoAirflowError:  # all that there are, of which nobody knows the number
        each = 0
    found = Machines(executor.nodes, executor.nodes * each)
    for component in getattr(executor, "heterogeneous", ()):
        other = machines_asked({"kind": executor.kind, **component})
        found = Machines(found.nodes + other.nodes, found.gpus + other.gpus)
    return found


def machines_asked(executor: Mapping[str, Any]) -> Machines:
    """Returns the same for the JSON form of an executor, which may be of another release: one machine if in doubt."""
    try:
        return machines_of(executor_from_json(executor))
    except NemoAirflowError:
        return Machines()
