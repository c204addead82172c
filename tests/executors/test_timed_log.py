"""A log that can only be asked for by time is read by offset."""

import json

from nemo_airflow.executors.base import Cursor
from nemo_airflow.executors.timed_log import Ask, TimedLog
from nemo_airflow.job import JobHandle

HANDLE = JobHandle("key", "docker", "1")


class Log:
    """A log with a time for each entry, which gives what came since a time."""

    def __init__(self):
        self.stream = b""
        self.entries = []

    def write(self, text, clock, written=None):
        """Writes a line after the record that tells its place; the back-end's clock may differ from the runner's."""
        record = json.dumps({"v": 1, "type": "clock", "ts": clock, "at": len(self.stream)}, separators=(",", ":"))
        data = b"\x1e" + record.encode() + b"\n" + text.encode() + b"\n"
        self.stream += data
        self.entries.append((clock if written is None else written, data))

    def end(self, clock, written=None):
        record = {"v": 1, "type": "end", "ts": clock, "at": len(self.stream)}
        data = b"\x1e" + json.dumps(record, separators=(",", ":")).encode() + b"\n"
        self.stream += data
        self.entries.append((clock if written is None else written, data))

    def fetch(self, ask):
        return b"".join(data for at, data in self.entries if ask.since is None or at >= ask.since)[: ask.limit]


def read(log, source, offset=0, limit=1 << 20, ended=False, since=None):
    cursor = Cursor(HANDLE, offset, limit, ended, since)
    ask = log.ask(cursor)
    while isinstance(answer := log.take(source.fetch(ask), cursor, ask), Ask):
        ask = answer
    return answer


def test_each_byte_is_read_once_from_any_offset():
    source, log = Log(), TimedLog()
    for second in range(100):
        source.write(f"line {second}", 1000.0 + second)
    assert read(log, source).data == source.stream
    for offset in range(0, len(source.stream), 97):
        assert read(log, source, offset).data == source.stream[offset:]


def test_many_lines_of_one_second_are_read_though_each_excerpt_is_small():
    source, log = Log(), TimedLog()
    for number in range(200):
        source.write(f"line {number}", 1000.0)
    data = b""
    while chunk := read(log, source, len(data), limit=512).data:
        data += chunk
    assert data == source.stream


def test_bytes_that_the_back_end_has_dropped_are_counted():
    source, log = Log(), TimedLog()
    for second in range(10):
        source.write(f"line {second}", 1000.0 + second)
    dropped = sum(len(data) for _, data in source.entries[:4])
    del source.entries[:4]
    chunk = read(log, source, offset=7)
    assert (chunk.gone, chunk.data) == (dropped - 7, source.stream[dropped:])
    assert chunk.end == len(source.stream)


def test_end_that_was_written_by_a_clock_set_back_is_read():
    for back in (5.0, 300.0, 7200.0, 400_000.0):
        source, log = Log(), TimedLog()
        source.write("first", 1_000_000.0)
        seen = len(source.stream)
        source.write("second", 1_000_001.0)
        seen = read(log, source).end
        source.write("late", 1_000_002.0 - back)
        source.end(1_000_003.0 - back)
        assert read(log, source, seen, ended=True).data == source.stream[seen:]
        assert log.has_ended


def test_nothing_more_is_asked_for_once_the_end_is_known():
    source, log = Log(), TimedLog()
    source.write("first", 1000.0)
    source.end(1001.0)
    whole = read(log, source, ended=True)
    asked = []
    source.fetch = lambda ask: asked.append(ask) or b""
    assert read(log, source, whole.end, ended=True).data == b""
    assert len(asked) == 1


def test_reader_that_knows_the_time_asks_for_nothing_before_it():
    source = Log()
    for second in range(1000):
        source.write(f"line {second}", 1000.0 + second)
    offset = sum(len(data) for _, data in source.entries[:900])
    asked = []
    fetch = source.fetch
    source.fetch = lambda ask: asked.append(ask) or fetch(ask)
    assert read(TimedLog(), source, offset, since=1900.0).data == source.stream[offset:]
    (ask,) = asked
    assert len(fetch(ask)) < len(source.stream) / 8


def test_time_that_is_too_late_does_not_make_anything_gone():
    source = Log()
    for second in range(1000):
        source.write(f"line {second}", 1000.0 + second)
    offset = sum(len(data) for _, data in source.entries[:500])
    chunk = read(TimedLog(), source, offset, since=1900.0)
    assert (chunk.gone, chunk.data) == (0, source.stream[offset:])
