"""What the supervisor does so that outputs go straight into the shared store, where the job was granted that."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Dict, List

from nemo_airflow.runner.secret_env import GRANT

if TYPE_CHECKING:
    from nemo_airflow.runner.checkpoint_uploads import CheckpointUploader
    from nemo_airflow.runner.stream_writer import StreamWriter
    from nemo_airflow.runner.uploads import Uploader

_LOOK_EVERY = 0.2
_SAY_EVERY = 15.0


class Uploading:
    """The uploader of a job, or none.

    Args:
        folder: The job's folder.
        secrets: The job's secrets by name. The grant is taken from them, and from this process's environment: the
            job's own code has no use for it.
    """

    def __init__(self, folder: str, secrets: Dict[str, str]) -> None:
        text = secrets.pop(GRANT, "")
        os.environ.pop(GRANT, None)
        self.secrets: List[str] = []
        """What must be in no output. Without its signature the rest of a grant is of no use."""
        self._folder = folder
        self._grant: Dict[str, Any] = {}
        self._machine = 0
        self._uploader: Uploader | None = None
        self._checkpoints: CheckpointUploader | None = None
        if text:
            self._open(folder, text)

    def _open(self, folder: str, text: str) -> None:
        from nemo_airflow.runner.upload_targets import secrets_in
        from nemo_airflow.runner.uploads import Uploader, read_grant

        if grant := read_grant(text):
            self._grant, several = grant, int(grant.get("machines", 1)) > 1
            self._machine = int(os.environ.get("NODE_RANK") or 0) if several else 0
            self._uploader = Uploader(folder, grant, self._machine)
            self.secrets += secrets_in(grant)

    def announce(self, path: str) -> None:
        """Has what the job announces sent while it runs."""
        if self._uploader is not None:
            self._uploader.announce(path)

    def send_checkpoints(self, known: Iterable[str]) -> None:
        """Has the checkpoints sent that are there, from the first machine of a job.

        Args:
            known: SHA-256 of pieces that the store has from an earlier attempt.
        """
        if not self._grant or self._machine:
            return
        from nemo_airflow.runner.checkpoint_uploads import CheckpointUploader

        if self._checkpoints is None or self._checkpoints.wait(0):  # one that gave up may succeed by now
            self._checkpoints = CheckpointUploader(self._folder, self._grant, known)
        self._checkpoints.send_new()

    def finish_checkpoints(self, has_time: Callable[[], bool]) -> Iterator[str]:
        """Sends the checkpoints that were not sent yet; yields an empty text several times a second.

        Args:
            has_time: Returns whether the job may wait for it.
        """
        if self._checkpoints is None:
            return
        self._checkpoints.finish()
        while not self._checkpoints.wait(_LOOK_EVERY):
            if not has_time():
                self._checkpoints.stop()
            yield ""

    def finish(self, is_to_end: Callable[[], bool]) -> Iterator[str]:
        """Sends the other outputs; yields several times a second, now and then a line of progress.

        Args:
            is_to_end: Returns whether there is no time for it any more.
        """
        if self._uploader is None:
            return
        if is_to_end():
            self._uploader.stop()
        else:
            self._uploader.finish()
        said_at = time.monotonic()
        while not self._uploader.wait(_LOOK_EVERY):
            if is_to_end():
                self._uploader.stop()
            line = ""
            if time.monotonic() >= said_at + _SAY_EVERY:
                said_at = time.monotonic()
                moved, total = self._uploader.progress
                line = f"outputs sent to the store: {moved >> 20} of {total >> 20} MiB"
            yield line

    def pass_on_warnings(self, writer: StreamWriter) -> None:
        """Writes a record for each thing that people should know."""
        for uploader in filter(None, (self._uploader, self._checkpoints)):
            for text in uploader.take_warnings():
                writer.record("warning", {"message": text})

    @property
    def manifest(self) -> str:
        """SHA-256 of the manifest, in hex; empty where not all outputs were sent."""
        return self._uploader.manifest if self._uploader is not None else ""
