"""Sends a text to addresses of the library Apprise: Slack, Teams, e-mail, any webhook ..."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from nemo_airflow.connections import ConnectionInfo
from nemo_airflow.exceptions import BackendUnavailable, MissingExtraError, SettingsError

_ONLY_TEXT = ":version=&:title=&:attachments=&:type=&:message=text"
"""Has Apprise send ``{"text": ...}``, as Slack's webhooks take it, and those of what is made like it."""


class Recipients:
    """Where to send.

    Args:
        addresses: As Apprise has them, ``slack://...``, ``mailto://...``; or ``http(s)://`` for a webhook.

    Raises:
        SettingsError: An address is not one of Apprise's.
        MissingExtraError: Apprise is not installed.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        try:
            import apprise
        except ImportError as error:
            raise MissingExtraError("NemoRunNotifier", "notify") from error
        self._titled, self._webhooks = apprise.Apprise(), apprise.Apprise()
        for address in addresses:
            with _silent_log():
                known, group = apprise.Apprise.instantiate(address), self._titled
                if known is None and urlsplit(address).scheme in ("http", "https"):
                    mark = "&" if "?" in address else "?"
                    webhook = f"json{address.removeprefix('http')}{mark}{_ONLY_TEXT}"
                    known, group = apprise.Apprise.instantiate(webhook), self._webhooks
            if known is None:
                raise SettingsError(
                    f"a notifier's address that begins with {address.partition(':')[0]!r} is none that Apprise knows: "
                    "see its list of services, and give for example slack://TOKEN_A/TOKEN_B/TOKEN_C"
                )
            group.add(known)

    def send(self, title: str, text: str) -> None:
        """Sends a text. Blocks.

        Raises:
            BackendUnavailable: An address did not take it.
        """
        taken = [
            group.notify(title=own_title, body=body, body_format="text")
            for group, own_title, body in self._messages(title, text)
        ]
        self._check(taken)

    async def async_send(self, title: str, text: str) -> None:
        """Sends a text without blocking the event loop.

        Raises:
            BackendUnavailable: An address did not take it.
        """
        taken = [
            await group.async_notify(title=own_title, body=body, body_format="text")
            for group, own_title, body in self._messages(title, text)
        ]
        self._check(taken)

    def _messages(self, title: str, text: str) -> list[tuple[Any, str, str]]:
        messages = ((self._titled, title, text), (self._webhooks, "", f"{title}\n{text}"))
        return [message for message in messages if len(message[0])]

    def _check(self, taken: list[Any]) -> None:
        if all(taken):
            return
        names = [each.url(privacy=True).partition("?")[0] for group in (self._titled, self._webhooks) for each in group]
        raise BackendUnavailable(
            f"the notification was not taken by all of {', '.join(names)}: look at the log above for what they answered"
        )


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    """Keeps Apprise from logging the address that it does not know, which may be a secret."""
    logger = logging.getLogger("apprise")
    logger.disabled, was = True, logger.disabled
    try:
        yield
    finally:
        logger.disabled = was


def addresses_of(connection: ConnectionInfo) -> list[str]:
    """Returns the addresses of a connection: those of its password, or of the extra field ``config``.

    The field is that of Airflow's provider for Apprise: an object with ``path``, or a list of such.

    Raises:
        SettingsError: The connection has no address.
    """
    config = connection.extra.get("config") or ()
    entries = [config] if isinstance(config, (str, dict)) else list(config)
    found = [str(entry.get("path", "")) if isinstance(entry, dict) else str(entry) for entry in entries]
    found += connection.password.split()
    if not any(found):
        raise SettingsError(
            f"connection {connection.conn_id!r} has no address to notify: set its password to one of Apprise's, as "
            "slack://TOKEN_A/TOKEN_B/TOKEN_C"
        )
    return [address for address in found if address]
