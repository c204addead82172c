"""A shared store in a folder of an SSH host: files are streamed to ``cat``, and appear by ``mv``."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shlex
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, StoreError, StoreUnavailable
from nemo_airflow.ssh.shell import Answer, Shell
from nemo_airflow.store.place import Entry, Place

T = TypeVar("T")

_BLOCK = 1 << 18
_NAMES = 200  # that many in one command
_ABSENT = 44

_SHELLS: dict[tuple[int, str], Shell] = {}
"""One connection for each process and host, shared by all stores on it."""


class SSHPlace(Place):
    """Files under a folder of a host.

    Args:
        conn_id: Id of an Airflow connection of type ``ssh``; host keys are checked.
        folder: The folder there; a path that begins with ``~/`` is in the user's home.
    """

    def __init__(self, conn_id: str, folder: str) -> None:
        self.where = f"ssh://{conn_id}/{folder.removeprefix('/')}"
        self._conn_id = conn_id
        self._folder = folder.removeprefix("~/")

    def stat(self, name: str) -> Entry | None:
        """See :meth:`Place.stat`."""
        answer = self._run(f"[ -f {_q(name)} ] || exit {_ABSENT}\nstat -c '%s %Y' {_q(name)}", _ABSENT)
        return None if answer.code == _ABSENT else _entry(f"{answer.text.strip()} {name}")

    def put(self, name: str, source: Path, sha256: str) -> None:
        """See :meth:`Place.put`. A partial upload is continued, if it is the file's beginning."""
        size = source.stat().st_size
        mine, part = f"incoming/{sha256}.{secrets.token_hex(8)}", f"incoming/{sha256}.part"
        # Claimed by a rename: of two uploads at once only one continues it.
        found = self._run(
            f"mkdir -p incoming {_q(os.path.dirname(name) or '.')} || exit 20\n"
            f"if mv {part} {mine} 2>/dev/null; then wc -c <{mine}; sha256sum <{mine}; fi"
        ).text.split()
        offset = int(found[0]) if found else 0
        if not found or offset > size or found[1] != _prefix_digest(source, offset):
            offset = 0
        command = _command(
            self._enter(),
            f"{'cat >>' if offset else 'cat >'}{mine} || exit 20",
            f'if [ "$(wc -c <{mine})" -ne {size} ]; then mv {mine} {part}; exit 21; fi',
            f'[ "$(sha256sum <{mine} | cut -c -64)" = {sha256} ] || {{ rm -f {mine}; exit 22; }}',
            f"chmod 644 {mine}; mv {mine} {_q(name)}",
        )
        with source.open("rb") as file:
            file.seek(offset)
            answer = self._ask(self._shell.send(command, _blocks(file)))
        if answer.code in (21, 22):
            raise StoreUnavailable(f"{name} did not arrive whole in {self.where}")
        self._check(answer)

    def get(self, name: str, target: Path) -> bool:
        """See :meth:`Place.get`."""
        entry = self.stat(name)
        if entry is None:
            return False
        self._ask(self._receive(_command(self._enter(), f"cat {_q(name)}"), target))
        return True

    def read(self, name: str) -> bytes | None:
        """See :meth:`Place.read`."""
        answer = self._run(f"[ -f {_q(name)} ] || exit {_ABSENT}\ncat {_q(name)}", _ABSENT)
        return None if answer.code == _ABSENT else answer.out

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Place.write`."""
        mine = f"incoming/write.{secrets.token_hex(8)}"
        self._run(f"mkdir -p incoming {_q(os.path.dirname(name) or '.')}")
        command = _command(
            self._enter(),
            f'cat >{mine} && [ "$(wc -c <{mine})" -eq {len(data)} ] || {{ rm -f {mine}; exit 20; }}',
            f"mv {mine} {_q(name)}",
        )
        self._check(self._ask(self._shell.send(command, _once(data))))

    def touch(self, name: str) -> None:
        """See :meth:`Place.touch`."""
        self._run(f"touch -c {_q(name)}")

    def entries(self, folder: str) -> Iterator[Entry]:
        """See :meth:`Place.entries`."""
        # Partial uploads that were not continued for a day.
        self._run("[ ! -d incoming ] || find incoming -type f -mtime +0 -exec rm -f {} +")
        answer = self._run(f"[ ! -d {_q(folder)} ] || find {_q(folder)} -type f -printf '%s %T@ %p\\n'")
        yield from (_entry(line) for line in answer.text.splitlines())

    def delete(self, names: list[str]) -> None:
        """See :meth:`Place.delete`."""
        for start in range(0, len(names), _NAMES):
            self._run(f"rm -f {' '.join(map(_q, names[start : start + _NAMES]))}")

    @property
    def _shell(self) -> Shell:
        return _SHELLS.setdefault((os.getpid(), self._conn_id), Shell(self._conn_id))

    def _enter(self) -> str:
        return f"mkdir -p {_q(self._folder)} && cd {_q(self._folder)} || exit 20"

    def _run(self, script: str, *fine: int) -> Answer:
        return self._check(self._ask(self._shell.run(f"{self._enter()}\n{script}")), *fine)

    def _check(self, answer: Answer, *fine: int) -> Answer:
        if answer.code and answer.code not in fine:
            raise StoreError(f"the store {self.where} cannot be used: {answer.reason}")
        return answer

    def _ask(self, call: Coroutine[Any, Any, T]) -> T:
        try:
            return blocking.run(call)
        except BackendUnavailable as error:
            raise StoreUnavailable(f"the store {self.where} cannot be used now: {error}") from error
        except ExecutorError as error:
            raise StoreError(f"the store {self.where} cannot be used: {error}") from error

    async def _receive(self, command: str, target: Path) -> None:
        async with self._shell.receive(command) as stream:
            with target.open("wb") as file:
                while block := await stream.read(_BLOCK):
                    await asyncio.to_thread(file.write, block)


def _q(name: str) -> str:
    return shlex.quote(name)


def _command(*lines: str) -> str:
    return f"sh -c {shlex.quote(chr(10).join(lines))}"


def _entry(line: str) -> Entry:
    size, time, name = line.split(" ", 2)
    return Entry(name, int(size), float(time))


def _prefix_digest(source: Path, length: int) -> str:
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while length and (block := file.read(min(length, 1 << 20))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


async def _blocks(file: Any) -> AsyncIterator[bytes]:
    while block := await asyncio.to_thread(file.read, _BLOCK):
        yield block


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
