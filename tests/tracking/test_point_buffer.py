"""The buffer keeps what it must, drops what it may, and never tells a mark that is not true."""

from __future__ import annotations

from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.buffer import PointBuffer


def loss(step: int) -> Metric:
    return Metric("loss", 0.5, step, float(step))


def sample(step: int) -> Metric:
    return Metric("system/cpu_percent", 50.0, step, float(step))


def names(buffer: PointBuffer) -> list[tuple[str, int]]:
    batch = buffer.take(1000)
    return [(metric.name, metric.step) for metric in batch.metrics] if batch else []


def test_batches_come_in_order_with_the_mark_of_the_last_whole_record() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(0), loss(1)], 10)
    buffer.put([loss(2), loss(3)], 20)
    first, second = buffer.take(3), buffer.take(3)
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


def test_a_batch_that_is_put_back_comes_first_again() -> None:
    buffer = PointBuffer(100)
    buffer.put([loss(0), loss(1)], 10)
    batch = buffer.take(1)
    assert batch is not None
    buffer.put([loss(2)], 20)
    buffer.put_back(batch)
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
    while (batch := buffer.take(4)) is not None:
        assert batch.mark == 0
    assert buffer.acknowledged == 10
