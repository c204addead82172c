"""Brings reports from where the runner's socket is not reached: processes on other machines, and tasks of an array.

They append to files of the job's folder, which all of them see; the runner reads these while the job runs, and once
more at its end.
"""

import os
import time
from typing import Callable, Dict

FOLDER = "reports"
"""Folder, in the job's own, of a file for each such process. Its name is the place that its metrics get."""

END = ".jsonl"

_READ_EVERY = 1.0
_BLOCK = 4 << 20


def path_of(folder: str, place: str) -> str:
    """Returns the path of the file of one process, such as ``node_1``; makes its folder."""
    root = os.path.join(folder, FOLDER)
    os.makedirs(root, exist_ok=True)
    return os.path.join(root, place + END)


class FileChannel:
    """Appends reports to a file, as a socket would take them.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def sendall(self, data: bytes) -> None:
        """Appends whole lines."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]


class ReportFiles:
    """Reads what was appended.

    Args:
        folder: The job's folder.
        take: Called with each line, and with the place of its process.
    """

    def __init__(self, folder: str, take: Callable[[bytes, str], None]) -> None:
        self._folder = os.path.join(folder, FOLDER)
        self._take = take
        self._offsets: Dict[str, int] = {}
        self._next = 0.0

    def tick(self) -> None:
        """Reads what is new, if that was not done just now."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _READ_EVERY
            self.read()

    def read(self) -> None:
        """Reads all that is new."""
        names = os.listdir(self._folder) if os.path.isdir(self._folder) else []
        for name in sorted(names):
            if name.endswith(END):
                while self._read_block(name):
                    continue

    def _read_block(self, name: str) -> bool:
        """Reads whole lines; returns whether there may be more."""
        offset = self._offsets.get(name, 0)
        with open(os.path.join(self._folder, name), "rb") as file:
            file.seek(offset)
            data = file.read(_BLOCK)
        whole = data[: data.rfind(b"\n") + 1] or (data if len(data) == _BLOCK else b"")
        self._offsets[name] = offset + len(whole)
        for line in whole.splitlines():
            self._take(line, name[: -len(END)])
        return bool(whole)
