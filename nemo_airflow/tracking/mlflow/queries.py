"""Which runs of jobs are wanted, and in which order, in the words of MLflow's search."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from nemo_airflow.exceptions import SettingsError
from nemo_airflow.job import JobState
from nemo_airflow.language.nearest import similar
from nemo_airflow.tracking.mlflow import fields

_COMPARISON = re.compile(r"(?P<name>.+?)\s*(?P<operator><=|>=|!=|==|=|<|>)\s*(?P<value>[^<>=!]+)")
_ATTRIBUTES = {"started": "attributes.start_time", "ended": "attributes.end_time", "name": "attributes.run_name"}
_TAGS = {
    "dag": "airflow.dag_id", "task": "airflow.task_id", "state": fields.STATE, "back-end": "nemo_airflow.backend",
    "user": fields.USER, "commit": "nemo_airflow.commit",
}  # fmt: skip
NEWEST = "-started"

_Kind = Literal["attributes", "params", "tags"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A metric's newest value compared with a number.

    Attributes:
        name: The metric.
        operator: ``<``, ``<=``, ``>``, ``>=``, ``=`` or ``!=``.
        value: The number.
    """

    name: str
    operator: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Comparison:
        """Reads ``loss < 0.1``.

        Raises:
            SettingsError: It is no comparison with a number.
        """
        if match := _COMPARISON.fullmatch(text.strip()):
            try:
                operator = "=" if match["operator"] == "==" else match["operator"]
                return cls(match["name"], operator, float(match["value"]))
            except ValueError:
                pass  # said below, as for any other text
        raise SettingsError(
            f"{text!r} does not compare a metric with a number: write 'loss<0.1', with <, <=, >, >=, = or !="
        )


def parse_pairs(texts: Sequence[str], what: str) -> dict[str, str]:
    """Reads texts of the form ``NAME=VALUE``.

    Args:
        texts: The texts.
        what: What they are, for the error.

    Raises:
        SettingsError: One of them is not of this form.
    """
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise SettingsError(f"{what} {text!r} has no value: write NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs


@dataclasses.dataclass(frozen=True)
class RunQuery:
    """Which runs of jobs are wanted: those that meet all of these conditions.

    Attributes:
        dag: The DAG of their task.
        task: Their task.
        name: Their name.
        state: How they ended, or ``running``.
        back_end: The kind of their executor.
        user: Who started them.
        tags: Values of tags by name.
        config: Values of the config by path, as the list of runs shows them.
        metrics: What their metrics must be.
        since: They began then or later, in seconds since the epoch.
        until: They began before then.
        without_dags: Not of these DAGs, nor of none.
        run_ids: One of these runs; any when None.
        sort: ``started``, ``ended``, ``name``, ``dag``, ``task``, ``state``, ``back-end``, ``user``, ``commit``, or a
            metric, or ``params.PATH``, ``metrics.NAME``, ``tags.NAME``; with ``-`` in front the largest comes first.

    Raises:
        SettingsError: There is no such state.
    """

    dag: str = ""
    task: str = ""
    name: str = ""
    state: str = ""
    back_end: str = ""
    user: str = ""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Sequence[Comparison] = ()
    since: float | None = None
    until: float | None = None
    sort: str = NEWEST
    without_dags: Sequence[str] = ()
    run_ids: Sequence[str] | None = None

    def __post_init__(self) -> None:
        states = sorted(str(state) for state in JobState if state.is_final or state is JobState.RUNNING)
        if self.state and self.state not in states:
            raise SettingsError(
                f"{self.state!r} is not a state of a run{similar(self.state, states)}; one is {', '.join(states)}"
            )

    def to_filter(self) -> str:
        """Returns MLflow's filter, which is empty for all runs.

        Raises:
            SettingsError: A name or value has characters that MLflow's filter cannot have.
        """
        return " AND ".join(self._conditions())

    def to_order(self) -> list[str]:
        """Returns MLflow's order: runs that are equal in it, the newest first."""
        name = self.sort.removeprefix("-")
        direction = "DESC" if self.sort.startswith("-") else "ASC"
        order = [f"{_sort_field(name)} {direction}"]
        return order if name == "started" else [*order, "attributes.start_time DESC"]

    def _conditions(self) -> Iterator[str]:
        if self.state == JobState.RUNNING:
            yield "attributes.status = 'RUNNING'"
        elif self.state:
            yield _equal("tags", fields.STATE, self.state)
        for name, value in (("dag", self.dag), ("task", self.task), ("back-end", self.back_end), ("user", self.user)):
            if value:
                yield _equal("tags", _TAGS[name], value)
        if self.name:
            yield _equal("attributes", "run_name", self.name)
        for name, value in self.tags.items():
            yield _equal("tags", name, value)
        for path, value in self.config.items():
            yield _equal("params", fields.clean_name(path), value)
        for metric in self.metrics:
            yield f"metrics.{_quoted(fields.clean_name(metric.name))} {metric.operator} {metric.value!r}"
        if self.since is not None:
            yield f"attributes.start_time >= {round(self.since * 1000)}"
        if self.until is not None:
            yield f"attributes.start_time < {round(self.until * 1000)}"
        for name in self.without_dags:
            yield _compared("tags", _TAGS["dag"], "!=", name)
        if self.run_ids is not None:
            yield "attributes.run_id IN ({})".format(", ".join(f"'{each}'" for each in self.run_ids if each.isalnum()))


def _sort_field(name: str) -> str:
    if name in _ATTRIBUTES:
        return _ATTRIBUTES[name]
    if name in _TAGS:
        return f"tags.{_quoted(_TAGS[name])}"
    kind, dot, rest = name.partition(".")
    if dot and kind in ("metrics", "params", "tags"):
        return f"{kind}.{_quoted(rest)}"
    return f"metrics.{_quoted(fields.clean_name(name))}"


def _equal(kind: _Kind, name: str, value: str) -> str:
    return _compared(kind, name, "=", value)


def _compared(kind: _Kind, name: str, operator: Literal["=", "!="], value: str) -> str:
    quote = "'" if "'" not in value else '"'
    if quote in value:
        raise SettingsError(f"runs cannot be searched for {value!r}: MLflow finds no value with both kinds of quotes")
    return f"{kind}.{_quoted(name)} {operator} {quote}{value}{quote}"


def _quoted(name: str) -> str:
    if "`" in name:
        raise SettingsError(f"runs cannot be searched by {name!r}: MLflow finds no name with a backtick")
    return f"`{name}`"
