"""Passes outputs on to where they are kept while they come: never many bytes of them are on this machine's disk."""

from __future__ import annotations

import dataclasses
import os
import posixpath
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import LeaveOut
from nemo_airflow.executors.intake import Intake
from nemo_airflow.progress import Progress
from nemo_airflow.store.shared import sha256_of
from nemo_airflow.tracking.links import Links

BOUND = 256 << 20
"""Bytes of files that may wait on this machine's disk; one file that is larger may, alone."""

_BATCH = 500
"""Files that a keeper is given at once, at most."""


@dataclasses.dataclass(eq=False, slots=True)
class Item:
    """A file that has come.

    Attributes:
        names: Its paths among the outputs: several where links stand for it.
        path: Where it is.
        size: Its bytes.
        passing: Whether it is removed when it is kept.
        sha256: Of its content, once it was read.
        keepers: How many have not kept it yet.
    """

    names: tuple[str, ...]
    path: Path
    size: int
    passing: bool
    sha256: str = ""
    keepers: int = 0


_GONE = Path()

Keep = Callable[[list[Item]], None]
"""Keeps files; calls :meth:`Passage.finish_item` for each, then or later, from any thread."""


class Passage(Intake):
    """Hands files that come to keepers, each in threads of its own, and removes them when all have kept them.

    Args:
        folder: Room on this machine's disk, for this passage alone.
        progress: Moves when bytes come.
        wanted: Returns whether a file stays here to the end, also when it is kept: one of an artifact.
        bound: Bytes that may wait; ``BOUND`` when None.
    """

    def __init__(
        self,
        folder: Path,
        progress: Progress,
        wanted: Callable[[str], bool] = lambda name: False,
        bound: int | None = None,
    ) -> None:
        self.progress = progress
        self.root = folder / "artifacts"
        """Folder with the files that stay; after :meth:`use_place` that of all outputs."""
        self.into = folder / "passing"
        self._wanted = wanted
        self._bound = BOUND if bound is None else bound
        self._links = Links()
        self._kept: dict[str, Item] = {}
        self._asked_again = False
        self._in_place = False
        self._keepers: list[tuple[queue.SimpleQueue[Item | None], Keep, int]] = []
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._held = 0
        self._open = 0
        self._error: BaseException | None = None
        self.count = 0
        """Files that have come."""

    def add_keeper(self, keep: Keep, threads: int = 1) -> None:
        """Adds a keeper, before anything comes."""
        self._keepers.append((queue.SimpleQueue(), keep, threads))

    def start(self) -> None:
        """Has the keepers begin."""
        for items, keep, count in self._keepers:
            for _ in range(count):
                thread = threading.Thread(target=self._serve, args=(items, keep), name="nemo-keep", daemon=True)
                thread.start()
                self._threads.append(thread)

    def fail(self, error: BaseException) -> None:
        """Ends the passage: whatever comes is refused."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def check(self) -> None:
        """See :meth:`Intake.check`: the error of a keeper."""
        if self._error is not None:
            raise self._error

    def make_room(self, size: int) -> None:
        """See :meth:`Intake.make_room`."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._held or self._held + size <= self._bound)
            self._refuse_after_error()
            self._held += size

    def give_back(self, size: int) -> None:
        """See :meth:`Intake.give_back`."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def note_bytes(self, size: int) -> None:
        """See :meth:`Intake.note_bytes`."""
        self.progress.touch()

    def take_file(self, name: str, path: Path, *, passing: bool) -> None:
        """See :meth:`Intake.take_file`."""
        self._refuse_after_error()
        size = path.stat().st_size
        with self._changed:
            names = (name, *self._links.names_of(name))
            self._links.add_file(name)
            before = self._kept.get(name)
        if before is not None and before.size == size and sha256_of(path) == self._digest_of(before):
            names = tuple(each for each in names if each not in self._kept)
        for each in (name, *(other for other in names if self._links.is_hard(other))):
            if self._wanted(each) and not self._in_place:
                self._set_aside(each, path)
        item = Item(names, path, size, passing)
        with self._changed:
            self._kept.update(dict.fromkeys(names, item))
            self._open += 1
            self.count += len(names)
            item.keepers = len(self._keepers) if names else 0
        if not item.keepers:
            item.keepers = 1
            self.finish_item(item)
            return
        for items, _, _ in self._keepers:
            items.put(item)

    def take_link(self, name: str, target: str, *, hard: bool = False) -> None:
        """See :meth:`Intake.take_link`."""
        with self._changed:
            self._links.add(name, target, hard=hard)

    def take_folder(self, name: str) -> None:
        """See :meth:`Intake.take_folder`."""
        with self._changed:
            self._links.add_folder(name)

    def use_place(self, root: Path) -> None:
        """See :meth:`Intake.use_place`."""
        self.root, self._in_place = root, True

    def has_all(self, leave_out: LeaveOut) -> bool:
        """Returns whether nothing has to come once more: a file for a link that came after it.

        Args:
            leave_out: Called with each link that cannot be kept, and why.
        """
        late = [name for name in self._links.of_files() if name not in self._kept]
        if late and not self._asked_again:
            self._asked_again = True
            return False
        for name, reason in [*self._links.find_broken(), *((name, "has come without its file") for name in late)]:
            leave_out(f"{name} {reason}")
        return True

    def finish_item(self, item: Item) -> None:
        """Notes that a keeper is done with a file."""
        with self._changed:
            item.keepers -= 1
            if item.keepers:
                return
        if item.passing:
            item.path.unlink(missing_ok=True)
        item.path = _GONE  # the item itself stays, for its digest
        with self._changed:
            self._open -= 1
            if item.passing:
                self._held -= item.size
            self._changed.notify_all()

    def finish(self) -> None:
        """Waits until all that has come is kept. Blocks.

        Raises:
            NemoAirflowError: A keeper's.
            OSError: A keeper's.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._error or not self._open)
        self.close()
        self.check()
        for name, target in self._links.soft():
            if self._wanted(name) and not self._in_place:
                path = self.root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(target)

    def close(self) -> None:
        """Has the keepers end, when they are done with what they hold."""
        if self._open:
            self.fail(ExecutorError("the outputs are not kept: it was given up"))
        for items, _, count in self._keepers:
            for _ in range(count):
                items.put(None)

    def _serve(self, items: queue.SimpleQueue[Item | None], keep: Keep) -> None:
        more = True
        while more and self._error is None:
            batch, size = [], 0
            item = items.get()
            while item is not None:
                batch.append(item)
                size += item.size
                if len(batch) >= _BATCH or size >= BOUND // 4:
                    break
                try:
                    item = items.get_nowait()
                except queue.Empty:
                    break
            more = item is not None
            if batch:
                try:
                    keep(batch)
                except BaseException as error:  # noqa: BLE001 - it is raised where the outputs are waited for
                    self.fail(error)

    def _digest_of(self, item: Item) -> str:
        """Returns the digest of a file that has come before, once it was read."""
        with self._changed:
            self._changed.wait_for(lambda: self._error or item.sha256 or not item.keepers)
        return item.sha256

    def _set_aside(self, name: str, path: Path) -> None:
        place = self.root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        os.link(path, place)

    def _refuse_after_error(self) -> None:
        if self._error is not None:
            raise ExecutorError(f"the outputs are not taken any more: {self._error}") from self._error


def is_below(paths: Iterable[str]) -> Callable[[str], bool]:
    """Returns a function that tells whether a name is one of these paths, or below one."""
    whole: Sequence[str] = [posixpath.normpath(path) for path in paths]
    return lambda name: any(name == path or name.startswith(f"{path}/") for path in whole)
