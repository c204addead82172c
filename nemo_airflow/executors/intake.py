"""The interface of what takes a job's outputs one by one while they come, in place of a folder with all of them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from pathlib import Path

from nemo_airflow.progress import Progress


class Intake(abc.ABC):
    """Takes outputs. Its methods may block, and may be called from any thread, also for an output that came before.

    An error of any of them ends the transfer. A driver sends links before files, where it can: a file that a link
    stands for has to come after it, or all is asked for once more.

    Attributes:
        progress: Moves as bytes come, and as they are kept.
    """

    progress: Progress

    @abc.abstractmethod
    def make_room(self, size: int) -> None:
        """Waits until a file of so many bytes may be written here, and holds the room for it."""

    @abc.abstractmethod
    def give_back(self, size: int) -> None:
        """Lets go of the room for a file that has not come."""

    @abc.abstractmethod
    def note_bytes(self, size: int) -> None:
        """Notes that so many bytes more have come."""

    @abc.abstractmethod
    def take_file(self, name: str, path: Path, *, passing: bool) -> None:
        """Takes a file that has come whole.

        Args:
            name: Its path among the outputs, with slashes.
            path: Where it is.
            passing: Whether room was made for it: then it is removed when it is kept. Otherwise it is the job's own.
        """

    @abc.abstractmethod
    def take_link(self, name: str, target: str, *, hard: bool = False) -> None:
        """Takes a link.

        Args:
            name: Its path among the outputs.
            target: What it says; of a hard link the path of the other name among the outputs.
            hard: Whether it is another name of a file.
        """

    @abc.abstractmethod
    def take_folder(self, name: str) -> None:
        """Takes a folder, which may be empty."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises why outputs are not taken any more, if they are not."""

    @abc.abstractmethod
    def has_all(self, leave_out: Callable[[str], None]) -> bool:
        """Returns whether nothing has to come once more: a file for a link that came after it.

        Args:
            leave_out: Called with each link that cannot be kept, and why.
        """

    @abc.abstractmethod
    def use_place(self, root: Path) -> None:
        """Notes that all outputs are in a folder of the job that this machine sees, and stay there."""


class Below(Intake):
    """Hands on the outputs of one of several machines, below a folder of their own.

    Args:
        whole: What takes the outputs of all.
        folder: The folder.
    """

    def __init__(self, whole: Intake, folder: str) -> None:
        self._whole = whole
        self._folder = folder
        self.progress = whole.progress

    def make_room(self, size: int) -> None:
        """See :meth:`Intake.make_room`."""
        self._whole.make_room(size)

    def give_back(self, size: int) -> None:
        """See :meth:`Intake.give_back`."""
        self._whole.give_back(size)

    def note_bytes(self, size: int) -> None:
        """See :meth:`Intake.note_bytes`."""
        self._whole.note_bytes(size)

    def take_file(self, name: str, path: Path, *, passing: bool) -> None:
        """See :meth:`Intake.take_file`."""
        self._whole.take_file(f"{self._folder}/{name}", path, passing=passing)

    def take_link(self, name: str, target: str, *, hard: bool = False) -> None:
        """See :meth:`Intake.take_link`."""
        self._whole.take_link(f"{self._folder}/{name}", f"{self._folder}/{target}" if hard else target, hard=hard)

    def take_folder(self, name: str) -> None:
        """See :meth:`Intake.take_folder`."""
        self._whole.take_folder(f"{self._folder}/{name}")

    def check(self) -> None:
        """See :meth:`Intake.check`."""
        self._whole.check()

    def has_all(self, leave_out: Callable[[str], None]) -> bool:
        """See :meth:`Intake.has_all`."""
        return self._whole.has_all(leave_out)

    def use_place(self, root: Path) -> None:
        """Is not called: the outputs of several machines are in no one place."""
        raise NotImplementedError
