"""Sends a job's checkpoints into the shared store while it runs, by the same way as its outputs.

Each list of them replaces the one before, and has those that are kept then. It is written last, and a checkpoint's name
says what it consists of: whoever reads the list tells which of them are there whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Dict

from nemo_airflow.runner import checkpoints
from nemo_airflow.runner.uploads import Survey, Uploader

MANIFEST = "checkpoints.json"
"""Name of the list, as :data:`nemo_airflow.runner.uploads.MANIFEST` of outputs."""

_SENT = "checkpoints.sent"


class CheckpointUploader(Uploader):
    """Sends the checkpoints of one job, in threads of its own.

    Args:
        folder: The job's folder.
        grant: Where they may go.
        known: SHA-256 of pieces that the store has already, from an earlier attempt.
    """

    refusal = (
        "the checkpoints do not go to the store, so only where this job runs another attempt could go on from them"
    )

    def __init__(self, folder: str, grant: Mapping[str, Any], known: Iterable[str]) -> None:
        # Where pieces have numbers for names, those of outputs are others.
        super().__init__(folder, grant, int(grant.get("machines", 1)))
        self._root = os.path.join(folder, checkpoints.FOLDER)
        self._record = os.path.join(folder, _SENT)
        self._name = MANIFEST
        self._sent.update((sha256, sha256) for sha256 in known)

    def send_new(self) -> None:
        """Has all checkpoints sent that were not; returns at once."""
        if not self._waiting:
            self.announce(os.curdir)

    def finish(self) -> None:
        """Has those sent that were not; see :meth:`wait`."""
        with self._wake:
            self._ends = True
            self._wake.notify_all()

    def _survey(self, paths: Iterable[str]) -> Survey:
        survey = super()._survey(paths)
        survey.files = {
            path: found for path, found in survey.files.items() if checkpoints.number_in(path.split("/")[0])
        }
        return survey

    def _choose_files(self, survey: Survey, complete: bool) -> Dict[str, Any]:
        return dict(survey.files)
