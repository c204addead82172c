"""Tells people of a task and its job: by Slack, e-mail, any webhook, or whatever else the library Apprise knows."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseNotifier

from nemo_airflow.comparison.records import changes
from nemo_airflow.connections import aget_connection, get_connection, redact
from nemo_airflow.exceptions import ConfigError, JobFailed
from nemo_airflow.notifications.report import EVENTS, Report, event_of, state_of
from nemo_airflow.notifications.sending import Recipients, addresses_of
from nemo_airflow.web_address import web_address

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

_LONGEST_REASON = 2000


class NemoRunNotifier(BaseNotifier):
    """Sends what has become of a task: which event, why, what changed since its last good run, and links.

    Give it to a task's ``on_execute_callback``, ``on_retry_callback``, ``on_failure_callback`` or
    ``on_success_callback``, which say which event it is; or name the event, for a ``DeadlineAlert`` (``waiting``,
    ``slow``) or for a callback of a task that promotes models (``promoted``, ``not_promoted``, ``rolled_back``). What
    Airflow knows to be a secret is sent as ``***``.

    Args:
        addresses: Where to send: addresses of Apprise, such as ``slack://TOKEN_A/TOKEN_B/TOKEN_C`` or
            ``mailto://user:password@host``, or the ``https://`` address of a webhook that takes ``{"text": ...}`` as
            Slack's do. Best from a connection: an address may be a secret.
        conn_id: An Airflow connection whose password has such addresses, with blanks between them, or whose extra
            field ``config`` is that of Airflow's provider for Apprise.
        event: Which event it is; by Airflow's callback when None.
        only: Send only of these events; of all if empty. See :data:`nemo_airflow.notifications.report.EVENTS`.
        message: More to say, at the top of the text; may have templates.

    Raises:
        ConfigError: An event is unknown, or neither an address nor a connection is given.
    """

    template_fields: Sequence[str] = ("addresses", "conn_id", "message")
    events: ClassVar[Sequence[str]] = EVENTS

    def __init__(
        self,
        addresses: str | Sequence[str] = (),
        *,
        conn_id: str | None = None,
        event: str | None = None,
        only: Collection[str] = (),
        message: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for each in filter(None, (event, *only)):
            if each not in EVENTS:
                raise ConfigError(f"NemoRunNotifier: there is no event {each!r}: give one of {', '.join(EVENTS)}")
        if not addresses and not conn_id:
            raise ConfigError("NemoRunNotifier: give addresses=[...], or conn_id=... of a connection that has them")
        self.addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        self.conn_id = conn_id
        self.event = event
        self.only = tuple(only)
        self.message = message

    def notify(self, context: Context) -> None:
        """Sends what the context tells. Blocks.

        Raises:
            SettingsError: The connection is not defined, or an address is not one of Apprise's.
            BackendUnavailable: An address did not take it.
        """
        report = self._report(context)
        if report is not None:
            connections = [get_connection(self.conn_id)] if self.conn_id else []
            Recipients(self._all(connections)).send(*self._texts(report))

    async def async_notify(self, context: Context) -> None:
        """See :meth:`notify`; for deadlines, whose callbacks run in the triggerer."""
        report = await asyncio.to_thread(self._report, context)
        if report is not None:
            connections = [await aget_connection(self.conn_id)] if self.conn_id else []
            recipients = await asyncio.to_thread(Recipients, self._all(connections))
            await recipients.async_send(*self._texts(report))

    def _all(self, connections: Sequence[Any]) -> list[str]:
        return [*self.addresses, *(address for each in connections for address in addresses_of(each))]

    def _texts(self, report: Report) -> tuple[str, str]:
        text = f"{self.message}\n{report.text}" if self.message else report.text
        return redact(report.title), redact(text)

    def _report(self, context: Mapping[str, Any]) -> Report | None:
        """Returns what to tell; None where this notifier does not tell of the event."""
        ti = context.get("ti") or context.get("task_instance")
        before = self._previous(ti)
        event = self.event or event_of(context, was_failed=self._was_failed(ti, before))
        if self.only and event not in self.only:
            return None
        record = self._record(ti, None)
        good = self._previous(ti, "success") if event in ("failed", "retrying") else None
        good_record = self._record(ti, good.run_id) if good is not None else None
        dag_run = context.get("dag_run")
        page = str(getattr(ti, "log_url", "") or "")
        return Report(
            event=event,
            task=_name(context, ti),
            run_id=str(context.get("run_id") or _field(ti, "run_id") or _field(dag_run, "run_id")),
            reason=_reason(context) if event not in ("started", "succeeded", "recovered") else "",
            changes=changes(good_record, record) if record and good_record else (),
            compared_with=good.run_id if good is not None and record and good_record else "",
            links={
                "task": page,
                "job": f"{page.partition('?')[0]}/plugin/nemo_job" if page and record else "",
                "run": web_address(str(((record or {}).get("run") or {}).get("url") or "")),
            },
        )

    def _was_failed(self, ti: Any, before: Any) -> bool:
        if (getattr(ti, "try_number", 1) or 1) > 1:
            return True
        return state_of(before) == "failed"

    def _previous(self, ti: Any, state: str | None = None) -> Any:
        """Returns the same task's instance in the run before, or in the last one that ended so; None for none."""
        if not hasattr(ti, "get_previous_ti"):
            return None
        try:
            found = ti.get_previous_ti(state=state, map_index=ti.map_index if ti.map_index is not None else -1)
        except Exception as error:  # noqa: BLE001 - whatever it is, what has happened has to be told
            self.log.warning("Cannot ask Airflow for the runs before: %s", error)
            return None
        return found if found is not None and found.run_id != ti.run_id else None

    def _record(self, ti: Any, run_id: str | None) -> Mapping[str, Any] | None:
        """Returns the record of the task's job in a run; in this one for None."""
        if not hasattr(ti, "xcom_pull"):
            return None
        where = {"run_id": run_id} if run_id is not None else {}
        try:
            found = ti.xcom_pull(task_ids=ti.task_id, key="nemo_job", map_indexes=ti.map_index, **where)
        except Exception as error:  # noqa: BLE001 - as above
            self.log.warning("Cannot ask Airflow for the record of the job: %s", error)
            return None
        return found if isinstance(found, Mapping) else None


def _field(value: Any, name: str) -> str:
    """Returns a field of an object, or of a mapping in its place, as the contexts of deadlines have."""
    found = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return str(found or "")


def _name(context: Mapping[str, Any], ti: Any) -> str:
    dag_id = _field(context.get("dag"), "dag_id") or _field(ti, "dag_id") or _field(context.get("dag_run"), "dag_id")
    task_id = _field(ti, "task_id")
    index = getattr(ti, "map_index", -1)
    mapped = f"[{index}]" if isinstance(index, int) and index >= 0 else ""
    return ".".join(filter(None, (dag_id, task_id))) + mapped or "a task"


def _reason(context: Mapping[str, Any]) -> str:
    error = context.get("exception") or context.get("reason") or ""
    # Not the traceback, which the log has: a reason is a line.
    text = str(error).partition("\n\n")[0] if isinstance(error, JobFailed) else str(error)
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
