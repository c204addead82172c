"""What comes out of a job: its stream, and its outputs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
from collections.abc import Callable
from pathlib import Path

from nemo_airflow import blocking
from nemo_airflow.executors.base import Cursor, Driver, Executor
from nemo_airflow.job import Job, JobHandle, JobState
from nemo_airflow.testing.conformance.base import ConformanceCases, Finished
from nemo_airflow.testing.services import service_of

_LARGE = 96_000_000
"""Bytes of a large output: many times what a connection may hold at once."""


class ResultCases(ConformanceCases):
    """Lines and outputs come back whole."""

    # What comes out

    def test_long_log_is_complete_and_in_order(self, run: Callable[..., Finished]) -> None:
        assert run("print_lines", count=100_000).lines == [f"line {number}" for number in range(100_000)]

    def test_split_utf8_and_a_last_line_without_newline(self, run: Callable[..., Finished]) -> None:
        assert run("print_pieces").lines == ["größer → ok", "no newline"]

    def test_both_streams_and_child_processes_are_logged(self, run: Callable[..., Finished]) -> None:
        assert sorted(run("print_both").lines) == ["from a child", "to stderr", "to stdout"]

    def test_outputs_are_collected(self, run: Callable[..., Finished], driver: Driver, tmp_path: Path) -> None:
        names = ["model.bin", "with space/ünï.txt", *(f"many/{number}.txt" for number in range(200))]
        finished = run("write_outputs", names=names, size=10, job={"outputs": ("in the *.txt",)})
        collected = self.collect(driver, finished.handle, tmp_path)
        assert {str(path) for path in collected} == {*names, "in the working directory.txt"}
        assert (tmp_path / "with space" / "ünï.txt").read_bytes() == b"x" * 10

    def test_large_output_and_many_small_ones_are_collected(
        self, executor: Executor, run: Callable[..., Finished], tmp_path: Path
    ) -> None:
        handle = run("write_large_output", size=_LARGE, others=2000).handle
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            collected, grown = pool.apply(_collect_and_measure, (executor, handle, tmp_path))
        assert collected == 2001
        assert (tmp_path / "large.bin").stat().st_size == _LARGE
        assert (tmp_path / "small" / "1999").read_text() == "1999"
        assert grown < _LARGE * 2 / 3, "a large file is not to be held in memory"

    def test_output_that_links_nowhere_or_outside_is_left_out_and_all_others_are_kept(
        self, run: Callable[..., Finished], driver: Driver, tmp_path: Path
    ) -> None:
        finished = run("write_outputs_and_links")
        left_out: list[str] = []
        collected = self.collect(driver, finished.handle, tmp_path, left_out.append)
        assert {"model.bin", "ckpt/1/weights", "latest.bin"} <= {str(path) for path in collected}
        assert (tmp_path / "latest.bin").read_text() == (tmp_path / "model.bin").read_text() == "model"
        assert (tmp_path / "ckpt" / "last" / "weights").read_text() == "weights"
        assert sorted(text.split()[0] for text in left_out) == ["loop", "nowhere", "passwd", "pipe", "up"]
        assert not any(os.path.lexists(tmp_path / name) for name in ("loop", "nowhere", "passwd", "pipe", "up"))
        assert any("/etc/passwd" in text for text in left_out)

    # Reading

    def test_a_stream_can_be_read_from_any_offset(self, run: Callable[..., Finished], driver: Driver) -> None:
        handle = run("print_lines", count=1000).handle
        whole = blocking.run(_read_all(driver, handle, 0))
        assert blocking.run(_read_all(driver, handle, 1234)) == whole[1234:]

    def test_many_jobs_are_polled_in_one_call(
        self, executor: Executor, driver: Driver, make: Callable[..., Job]
    ) -> None:
        handles = [blocking.run(driver.submit(executor.render(make("add", a=n, b=1)))) for n in range(3)]
        results = [self.follow(executor, handle).outcome.result for handle in handles]
        assert results == [1, 2, 3]
        assert {self.final_status(driver, handle).state for handle in handles} == {JobState.SUCCEEDED}
        assert set(blocking.run(service_of(driver).status(handles))) == {handle.key for handle in handles}


def _collect_and_measure(executor: Executor, handle: JobHandle, into: Path) -> tuple[int, int]:
    """Collects a job's outputs; returns their count and by how many bytes this process has grown meanwhile."""

    async def collect() -> tuple[int, int]:
        driver = executor.connect()
        await service_of(driver).status([handle])  # loads the client
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count = len(await driver.collect(handle, into))
        return count, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024

    return asyncio.run(collect())


async def _read_all(driver: Driver, handle: JobHandle, offset: int) -> bytes:
    data = b""
    while chunks := await driver.read([Cursor(handle, offset + len(data))]):
        data += chunks[0].data
    return data
