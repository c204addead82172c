"""Fetches the outputs of a job from its back-end by hand: where its task could not keep them, they are still there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from nemo_airflow import blocking
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError, SettingsError
from nemo_airflow.executors.base import Driver, Executor
from nemo_airflow.job import JobHandle
from nemo_airflow.jobs.service import JobService
from nemo_airflow.operators.back_end import BackEnd

UNFINISHED = ".unfinished"
"""Folder in the new folder that has the outputs while they are fetched: who makes it is the only one to fetch there."""

_SAY_EVERY = 5.0
"""Seconds between two lines that say how much has come."""


def run(executor: str, key: str, into: str, *, release: bool) -> int:
    """Fetches the outputs into a new folder and lists them; returns 1 if some cannot be kept here."""
    loaded = load_executor(executor)
    handle, left_out = blocking.run(_collect(loaded, key, Path(into or f"outputs-{key}")))
    if release and not left_out:
        BackEnd(loaded, _warn).release(handle)
    for text in left_out:
        print(f"nemo-airflow: left out: {text}", file=sys.stderr)
    return 1 if left_out else 0


def _warn(text: str, *values: object) -> None:
    print(f"nemo-airflow: {text % values}", file=sys.stderr)


async def _collect(executor: Executor, key: str, folder: Path) -> tuple[JobHandle, list[str]]:
    left_out: list[str] = []
    driver = executor.connect()
    try:
        with _unfinished(folder) as unfinished:
            handle = await _find(driver, executor, key)
            async with _progress(unfinished):
                paths = await driver.collect(handle, unfinished, left_out.append)
            if executor.shares_filesystem:
                await asyncio.to_thread(_unlink, unfinished)
        for path in paths:
            print(path)
        print(f"{_amount(folder)}, in {folder}")
    finally:
        await driver.close()
    return handle, left_out


async def _find(driver: Driver, executor: Executor, key: str) -> JobHandle:
    handle = (await driver.find([key])).get(key)
    if handle is None:
        raise SettingsError(
            f"the {executor.kind} executor's back-end has no job {key}: what ended is deleted after the executor's "
            "ttl; the key is in the task's log"
        )
    status = (await JobService(driver).status([handle]))[key]
    if not status.state.is_final:
        print(f"nemo-airflow: job {key} is {status.state}: these are its outputs so far", file=sys.stderr)
    return handle


@contextlib.contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Gives a folder to fetch into, whose content comes into the new folder once it is whole.

    What has come without an error of the transfer is kept too: a machine of a group may be gone with its outputs.
    """
    unfinished, made = folder / UNFINISHED, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir()
    except FileExistsError:
        raise SettingsError(_not_new(folder)) from None
    except OSError as error:
        raise SettingsError(f"cannot make {error.filename}: {error.strerror}") from error
    try:
        if len(os.listdir(folder)) > 1:
            unfinished.rmdir()
            raise SettingsError(_not_new(folder))
        yield unfinished
    except ExecutorError as error:
        if isinstance(error, BackendUnavailable) or not any(unfinished.iterdir()):
            raise
        _finish(folder, unfinished)
        raise ExecutorError(f"{error}; what could be fetched is in {folder}") from error
    else:
        _finish(folder, unfinished)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def _not_new(folder: Path) -> str:
    if (folder / UNFINISHED).is_dir():
        return (
            f"{folder} has outputs that another 'nemo-airflow collect' fetches, or has not finished: name a new folder "
            "with --into, or delete it"
        )
    return f"{folder} is there already: name a new folder with --into"


def _finish(folder: Path, unfinished: Path) -> None:
    for path in unfinished.iterdir():
        path.rename(folder / path.name)
    unfinished.rmdir()


@contextlib.asynccontextmanager
async def _progress(folder: Path) -> AsyncIterator[None]:
    """Says now and then how much has come into a folder."""

    async def say() -> None:
        pause = _SAY_EVERY
        while True:
            await asyncio.sleep(pause)
            begun = time.monotonic()
            print(f"nemo-airflow: {await asyncio.to_thread(_amount, folder)} so far", file=sys.stderr, flush=True)
            pause = max(_SAY_EVERY, 20 * (time.monotonic() - begun))  # counting many files takes a while

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await saying


def _amount(folder: Path) -> str:
    count = size = 0
    for parent, folders, names in os.walk(folder):
        for name in [*names, *(name for name in folders if os.path.islink(os.path.join(parent, name)))]:
            with contextlib.suppress(FileNotFoundError):  # a file that has come whole gets its name just now
                size += os.lstat(os.path.join(parent, name)).st_size
                count += 1
    return f"{count:,} {'file' if count == 1 else 'files'}, {size:,} bytes"


def _unlink(folder: Path) -> None:
    """Makes copies of the files that are links to the job's own: whoever changes one would change the job's."""
    for path in list(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            copy = path.with_name(f".{path.name}.copy")
            shutil.copy2(path, copy)
            copy.replace(path)
