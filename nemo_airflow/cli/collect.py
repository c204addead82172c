"""Fetches the outputs of a job from its back-end by hand: where its task could not keep them, they are still there."""

from __future__ import annotations

import sys
from pathlib import Path

from nemo_airflow import blocking
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.base import Driver
from nemo_airflow.jobs.service import JobService


def run(executor: str, key: str, into: str, *, release: bool) -> int:
    """Fetches the outputs into a new folder and lists them; returns 1 if some cannot be kept here."""
    folder = Path(into or f"outputs-{key}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingsError(f"{folder} is there already: name a new folder with --into")
    driver = load_executor(executor).connect()
    left_out = blocking.run(_collect(driver, executor, key, folder, release=release))
    for text in left_out:
        print(f"nemo-airflow: left out: {text}", file=sys.stderr)
    return 1 if left_out else 0


async def _collect(driver: Driver, executor: str, key: str, folder: Path, *, release: bool) -> list[str]:
    left_out: list[str] = []
    try:
        handle = (await driver.find([key])).get(key)
        if handle is None:
            raise SettingsError(
                f"{executor}: there is no job {key}: what ended is deleted after the executor's ttl, and the key is in "
                "the task's log"
            )
        status = (await JobService(driver).status([handle]))[key]
        if not status.state.is_final:
            print(f"nemo-airflow: job {key} is {status.state}: these are its outputs so far", file=sys.stderr)
        paths = await driver.collect(handle, folder, left_out.append)
        for path in paths:
            print(path)
        size = sum((folder / path).lstat().st_size for path in paths)
        print(f"{len(paths)} {'file' if len(paths) == 1 else 'files'}, {size:,} bytes, in {folder}")
        if release and not left_out:
            await driver.release([handle])
    finally:
        await driver.close()
    return left_out
