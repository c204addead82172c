"""Keeps on disk what the tracker of one run does not take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_airflow.connections import redact
from nemo_airflow.exceptions import StoreError
from nemo_airflow.runner.masking import map_texts
from nemo_airflow.tracking.outbox import Outbox
from nemo_airflow.tracking.spool import Draft, Spool

if TYPE_CHECKING:
    from nemo_airflow.tracking.run import TrackedRun


@dataclasses.dataclass(frozen=True)
class Kept:
    """What was kept.

    Attributes:
        folder: Where.
        lost: What could not be kept, with the reason.
    """

    folder: Path
    lost: tuple[str, ...]


class Undelivered:
    """The entry of one run in the spool, made when something is to be kept.

    Args:
        key: The key of the job.
        began: When its run began, seconds since the epoch, or None.
    """

    def __init__(self, key: str, began: float | None) -> None:
        self._key = key
        self._began = began
        self._draft: Draft | None = None

    def points(self) -> Path:
        """Returns the file for points that memory has no room for.

        Raises:
            OSError: It cannot be written, or the spool is full.
        """
        return self._open().points

    def add_files(self, files: Mapping[str, Path]) -> None:
        """Keeps files, by their paths in the run. Blocks.

        Raises:
            OSError: They cannot be written, or the spool is full.
        """
        self._open().add_files(files)

    def keep(self, run: TrackedRun, outbox: Outbox, refusal: str) -> Kept:
        """Keeps all that waits. Blocks.

        Args:
            run: The run.
            outbox: What waits for it, with :meth:`points` as its spill.
            refusal: Why the tracker refuses it for good; empty if it is only unreachable.

        Raises:
            OSError: Nothing can be written, or the spool is full.
        """
        draft = self._open()
        lost = []
        try:
            outbox.points.move_to_disk()
        except OSError as error:
            lost.append(f"{len(outbox.points)} points ({error})")
        documents = []
        for call in tuple(outbox.file_calls):
            if call.verb != "files":
                documents.append(call)
                continue
            try:
                draft.add_files({path: Path(source) for path, source in call.arguments["files"].items()})
            except OSError as error:
                lost.append(f"{call.what} ({error})")
        pinned = dataclasses.replace(run, tracker=run.tracker.pin()).to_json()
        # Here, because whoever delivers it may not know the secrets that Airflow knows in this process.
        pinned["job"] = map_texts(pinned["job"], redact, keys=False)
        data = {
            "run": pinned,
            "calls": _masked(outbox.calls),
            "last_calls": _masked(outbox.last_calls),
            "file_calls": _masked(documents),
        }
        entry = draft.complete(data, refusal)
        self._draft = None
        return Kept(entry.folder, tuple(lost))

    def discard(self) -> None:
        """Deletes what is not kept: it was delivered, or is read from the job's stream again."""
        if self._draft is not None:
            self._draft.discard()
            self._draft = None

    def _open(self) -> Draft:
        if self._draft is None:
            try:
                self._draft = Spool().draft(self._key, self._began)
            except StoreError as error:  # another user's folder
                raise PermissionError(str(error)) from error
        return self._draft


def _masked(waiting: Any) -> list[dict[str, Any]]:
    return [
        {**call.to_json(), "arguments": map_texts(dict(call.arguments), redact, keys=False)} for call in tuple(waiting)
    ]
