"""Gives an error of a driver its address: the one job that it stumbles over, or the whole connection."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, ExecutorError, NemoAirflowError, SettingsError
from nemo_airflow.executors.base import Chunk, Cursor, Driver
from nemo_airflow.executors.seen import Seen
from nemo_airflow.job import JobHandle

AWAY = (BackendUnavailable, AccessRefused, SettingsError)
"""Errors of the whole connection: they say nothing of any job."""

_ALIKE = 4
"""Jobs in a row that cannot be looked at, after which it is no trouble of theirs but one of the whole connection."""

_log = logging.getLogger(__name__)


class IsolatingDriver:
    """Looks and reads through a driver; what one job makes the driver fail with is that job's trouble alone.

    Args:
        driver: The driver.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._troubled: set[tuple[str, str]] = set()
        """Jobs that are looked at one by one, by key and id."""

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """See :meth:`Driver.look`.

        Raises:
            BackendUnavailable, AccessRefused, SettingsError: The connection is away.
            Exception: The driver fails alike with all jobs.
        """
        seen: dict[str, Seen] = {}
        await self._look_at([handle for handle in handles if (handle.key, handle.id) not in self._troubled], seen)
        for handle in handles:
            if handle.key not in seen:
                await self._look_at([handle], seen)
        return seen

    async def _look_at(self, handles: Sequence[JobHandle], seen: dict[str, Seen]) -> None:
        if not handles:
            return
        begun = time.monotonic()
        try:
            seen |= await self._driver.look(handles)
        except AWAY:
            raise
        except Exception as error:
            if len(handles) > 1:  # one of them: found by halving
                middle = len(handles) // 2
                await self._look_at(handles[:middle], seen)
                await self._look_at(handles[middle:], seen)
                return
            seen[handles[0].key] = Seen(begun, trouble=one_line(error))
            if len(seen) >= _ALIKE and all(each.trouble for each in seen.values()):
                raise
            if not isinstance(error, ExecutorError):
                _log.warning("looking at job %s failed", handles[0].key, exc_info=error)
        for handle in handles:
            if handle.key not in seen:
                seen[handle.key] = Seen(begun, trouble=f"the driver of its back-end says nothing of job {handle.key}")
            if seen[handle.key].trouble:
                self._troubled.add((handle.key, handle.id))
            else:
                self._troubled.discard((handle.key, handle.id))

    async def read(self, cursors: Sequence[Cursor]) -> dict[tuple[str, int], Chunk]:
        """See :meth:`Driver.read`; returns the chunks by key and offset.

        Raises:
            BackendUnavailable, AccessRefused, SettingsError: The connection is away.
        """
        try:
            return {(chunk.key, chunk.offset): chunk for chunk in await self._driver.read(cursors)}
        except AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a trouble of one job
            if len(cursors) > 1:
                middle = len(cursors) // 2
                return await self.read(cursors[:middle]) | await self.read(cursors[middle:])
            cursor = cursors[0]
            if not isinstance(error, ExecutorError):
                _log.warning("reading the stream of job %s failed", cursor.handle.key, exc_info=error)
            trouble = Chunk(cursor.handle.key, cursor.offset, b"", trouble=one_line(error))
            return {(cursor.handle.key, cursor.offset): trouble}


def one_line(error: BaseException) -> str:
    """Returns what an error says, in one line; with its type where it is none of ours."""
    text = " ".join(str(error).split())
    return text if isinstance(error, NemoAirflowError) and text else f"{type(error).__name__}: {text}"
