"""Keeps the end of the stream in the job's folder, for a back-end that may lose output while it is unreachable."""

import os

FOLDER = "stream"
KEEP = "NEMO_AIRFLOW_KEEP_STREAM"
"""Environment variable that makes a runner keep it."""

_PART = 4 << 20
"""Bytes of a file. Two files are kept: at least this much of the stream's end, and at most twice as much."""


class StreamTail:
    """Writes the stream to files that are named by the offset of their first byte.

    Args:
        folder: The job's folder.
        at: Bytes already on the stream.
        part: Bytes of a file.
    """

    def __init__(self, folder: str, at: int, part: int = _PART) -> None:
        self._folder = os.path.join(folder, FOLDER)
        self._at = at
        self._part = part
        self._file = -1
        self._size = 0
        self._before = ""
        self._current = ""
        self._full = False

    def write(self, data: bytes) -> None:
        """Keeps the next bytes of the stream."""
        if self._full:
            return
        try:
            if self._file < 0 or self._size >= self._part:
                self._turn()
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:  # a full disk: the stream itself still has all of it
            self._full = True
        self._at += len(data)
        self._size += len(data)

    def _turn(self) -> None:
        os.makedirs(self._folder, exist_ok=True)
        if self._file >= 0:
            os.close(self._file)
        if self._before:
            os.unlink(self._before)
        self._before, self._current = self._current, os.path.join(self._folder, str(self._at))
        self._file = os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._size = 0
