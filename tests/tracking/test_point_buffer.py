"""The buffer keeps what it must, drops what it may, and never tells a mark that is not true."""

from __future__ import annotations

import contextlib
import math
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.buffer import Batch, PointBuffer


def loss(step: int) -> Metric:
    return Metric("loss", 0.5, step, float(step))


def sample(step: int) -> Metric:
    return Metric("system/cpu_percent", 50.0, step, float(step))


def names(buffer: PointBuffer) -> list[tuple[str, int]]:
    batch = buffer.take(1000)
    return [(metric.name, metric.step) for metric in batch.metrics] if batch else []


def send(buffer: PointBuffer, size: int) -> Batch | None:
    if (batch := buffer.take(size)) is not None:
        buffer.confirm(batch)
    return batch


def test_batches_come_in_order_with_the_mark_of_the_last_whole_record() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(0), loss(1)], 10)
    buffer.put([loss(2), loss(3)], 20)
    first, second = send(buffer, 3), send(buffer, 3)
    assert first is not None
    assert second is not None
    assert ([m.step for m in first.metrics], first.mark) == ([0, 1, 2], 10)
    assert ([m.step for m in second.metrics], second.mark) == ([3], 20)
    assert buffer.take(3) is None


def test_a_part_of_the_first_record_has_no_mark() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(step) for step in range(5)], 10)
    batch = buffer.take(3)
    assert batch is not None
    assert batch.mark == 0


def test_a_batch_that_is_not_confirmed_comes_first_again() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(0), loss(1)], 10)
    batch = buffer.take(1)
    assert batch is not None
    buffer.put([loss(2)], 20)
    assert [step for _, step in names(buffer)] == [0, 1, 2]


def test_what_is_acknowledged_is_passed_over() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(0)], 10)
    buffer.put([loss(1)], 20)
    buffer.acknowledge(10)
    buffer.put([loss(0)], 10)
    assert names(buffer) == [("loss", 1)]
    assert buffer.acknowledged == 10


def test_system_samples_are_dropped_before_the_users_points() -> None:
    buffer = PointBuffer(10)
    for step in range(8):
        buffer.put([loss(step), sample(step)], 10 * (step + 1))
    assert buffer.dropped == 7
    assert buffer.complete
    kept = names(buffer)
    assert [step for name, step in kept if name == "loss"] == list(range(8))
    assert [step for name, step in kept if name != "loss"] == [7]


def test_beyond_a_dropped_point_no_mark_is_told_so_that_it_can_be_read_again() -> None:
    buffer = PointBuffer(10)
    buffer.put([loss(0)], 10)
    buffer.acknowledge(10)
    for step in range(1, 14):
        buffer.put([loss(step)], 10 * (step + 1))
    assert not buffer.complete
    assert len(buffer) <= 10
    while (batch := send(buffer, 4)) is not None:
        assert batch.mark == 0
    assert buffer.acknowledged == 10


@pytest.mark.parametrize("seed", range(20))
def test_points_that_memory_has_no_room_for_go_to_disk_and_stay_in_order(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    buffer = PointBuffer(10, spill=lambda: tmp_path / "points")
    put: list[tuple[int, int]] = []
    sent: list[tuple[int, int]] = []
    batch: Batch | None = None
    while len(put) < 300:
        mark = put[-1][1] + 10 if put else 10
        count = draw.randint(1, 4)
        first = len(put)
        buffer.put([loss(first + n) for n in range(count)], mark)
        put += [(first + n, mark) for n in range(count)]
        if draw.random() < 0.3:  # a call may fail, and more is put while it lasts
            batch = buffer.take(draw.randint(1, 15))
        elif batch is not None and draw.random() < 0.7:
            buffer.confirm(batch)
            sent += [(metric.step, mark) for metric, mark in batch.entries]
            assert buffer.acknowledged <= sent[-1][1]
            batch = None
        if draw.random() < 0.05:
            buffer.move_to_disk()
        assert len(buffer) == len(put) - len(sent)
    while (batch := send(buffer, 7)) is not None:
        sent += [(metric.step, mark) for metric, mark in batch.entries]
    assert sent == put
    assert buffer.dropped == 0
    assert buffer.acknowledged == put[-1][1]


def test_points_on_disk_are_the_same_points(tmp_path: Path) -> None:
    points = [
        Metric("naïve\n", 0.1, 2**70, 1_700_000_000.123456),
        Metric("loss", math.inf, -1, 0.0),
        Metric("loss", -math.inf, 0, 0.0),
    ]
    buffer = PointBuffer(1, spill=lambda: tmp_path / "points")
    buffer.put([*points, Metric("loss", math.nan, 0, 0.0)], 10)
    batch = buffer.take(10)
    assert batch is not None
    assert batch.metrics[:3] == points
    assert math.isnan(batch.metrics[3].value)


def test_what_is_acknowledged_is_passed_over_on_disk_too(tmp_path: Path) -> None:
    buffer = PointBuffer(5, spill=lambda: tmp_path / "points")
    for step in range(20):
        buffer.put([loss(step)], 10 * (step + 1))
    buffer.acknowledge(170)
    assert [step for _, step in names(buffer)] == [17, 18, 19]
    assert buffer.acknowledged == 170


@contextlib.contextmanager
def no_room(size: int) -> Iterator[None]:
    """Lets no file of this process grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_the_disk_takes_no_more_the_oldest_points_in_memory_are_dropped_and_counted(tmp_path: Path) -> None:
    buffer = PointBuffer(10, spill=lambda: tmp_path / "points")
    with no_room(700):
        for step in range(60):
            buffer.put([loss(step)], 10 * (step + 1))
    assert isinstance(buffer.problem, OSError)
    steps = [step for _, step in names(buffer)]
    on_disk = sum(1 for _ in (tmp_path / "points").open())
    assert on_disk > 0
    assert steps == [*range(on_disk), *range(60 - len(steps) + on_disk, 60)]
    assert buffer.dropped == 60 - len(steps) > 0
    assert not buffer.complete


def test_where_there_is_no_disk_the_oldest_points_are_dropped_and_counted(tmp_path: Path) -> None:
    buffer = PointBuffer(10, spill=lambda: tmp_path / "not there" / "points")
    for step in range(30):
        buffer.put([loss(step)], 10 * (step + 1))
    assert isinstance(buffer.problem, OSError)
    steps = [step for _, step in names(buffer)]
    assert steps == list(range(buffer.dropped, 30))
    assert buffer.dropped > 0
