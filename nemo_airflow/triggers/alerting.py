"""Tells people of conditions on the metrics of a job, while it runs: by Airflow's own callbacks that need no worker."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from nemo_airflow import settings
from nemo_airflow.alerts import Alert, AlertWatch, parse_rules
from nemo_airflow.stream import Record

_IDS = ("dag_id", "task_id", "run_id", "map_index", "try_number", "log_url")

_SENT_WITHIN = 30.0
"""Seconds for which the end of a job waits for what is being sent."""


@dataclasses.dataclass(frozen=True)
class AlertSettings:
    """What a task wants to be told.

    Attributes:
        conditions: Texts of the conditions.
        callbacks: Path and arguments of each callback.
        told: Texts of the conditions that were told before.
        task: The task's ids, and the address of its log; a trigger does not always know its task.
    """

    conditions: Sequence[str]
    callbacks: Sequence[Mapping[str, Any]] = ()
    told: Sequence[str] = ()
    task: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def of_task(self, task_instance: Any) -> AlertSettings:
        """Returns the settings with the ids of a task instance."""
        return dataclasses.replace(self, task={name: getattr(task_instance, name, None) for name in _IDS})

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON types."""
        lists = {name: list(getattr(self, name)) for name in ("conditions", "callbacks", "told")}
        return {**lists, "task": dict(self.task)}


class Alerting:
    """Watches the records of one job, and tells of each condition once.

    What was told is noted in a file as well: a triggerer that goes on after another was killed reads the records again.

    Args:
        wanted: What is wanted.
        key: The job's key.
        warn: Called where something cannot be sent, in one line.
    """

    def __init__(self, wanted: AlertSettings, key: str, warn: Callable[[str], None]) -> None:
        self._wanted = wanted
        self._note = settings.home() / "alerts" / f"{key}.json"
        self._watch = AlertWatch(parse_rules(list(wanted.conditions)), {*wanted.told, *self._read_note()})
        self._warn = warn
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def settings(self) -> AlertSettings:
        """What is wanted by who follows the job next."""
        return dataclasses.replace(self._wanted, told=self._watch.told)

    def take(self, record: Record) -> list[Alert]:
        """Returns the conditions that come true with a record, and begins to tell of them."""
        alerts = self._watch.take(record)
        if alerts:
            self._write_note()
        for alert in alerts:
            for callback in self._wanted.callbacks:
                task = asyncio.create_task(self._send(callback, alert))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
        return alerts

    def _read_note(self) -> list[str]:
        try:
            return list(map(str, json.loads(self._note.read_text())))
        except (OSError, ValueError, TypeError):  # there is none, or it is damaged: then an alert is told twice
            return []

    def _write_note(self) -> None:
        new = self._note.with_suffix(".new")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(self._watch.told))
            new.replace(self._note)
        except OSError as error:  # a full disk must not end the following of a job
            self._warn(f"that an alert was told cannot be noted, so another triggerer may tell it again: {error}")

    async def settle(self, *, ended: bool) -> None:
        """Waits a bounded time until all is sent.

        Args:
            ended: Whether the job has ended, and nobody follows it any more.
        """
        if self._sending:
            await asyncio.wait(self._sending, timeout=_SENT_WITHIN)
        if ended:
            self._note.unlink(missing_ok=True)

    async def _send(self, callback: Mapping[str, Any], alert: Alert) -> None:
        what = {"condition": alert.rule.text, "metric": alert.rule.metric, "value": alert.value, "step": alert.step}
        context = {
            "ti": SimpleNamespace(**self._wanted.task),
            "dag": None,
            "run_id": self._wanted.task.get("run_id"),
            "reason": alert.text,
            "alert": what,
        }
        try:
            function = pkgutil.resolve_name(callback["path"])
            with_context = {"context": context} if _takes_context(function) else {}
            await function(**callback["kwargs"], **with_context)
        except Exception as error:  # noqa: BLE001 - code of third parties; the job goes on
            self._warn(f"the alert is not sent by {callback['path']}: {type(error).__name__}: {error}")


def _takes_context(function: Any) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(each.name == "context" or each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters)
