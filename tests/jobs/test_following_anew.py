"""Who follows a job anew begins where its task's log and its run in the tracker are, and loses nothing by that."""

import asyncio
import functools
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.executors.local import LocalDriver
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.jobs.judge import Policy
from nemo_airflow.kept_log import KeptLog
from nemo_airflow.stream import BEGINNING, Line, Place, Record, StreamReader

HANDLE = JobHandle("job", "local", "1")
MIB = 1 << 20


def record(kind, ts, **fields):
    return b"\x1e" + json.dumps({"v": 1, "type": kind, "ts": ts, **fields}, separators=(",", ":")).encode() + b"\n"


def stream_of(size):
    """Returns the stream of a job that has ended: lines of a hundred bytes, a clock and a point each 64 KiB."""
    stream, number = bytearray(record("start", 1000.0) + record("config", 1000.0, plan={})), 0
    while len(stream) < size:
        time = 1000.0 + number / 700
        if number % 640 == 0:
            point = record("metrics", time, points=[["loss", 1.0, number, time]])
            stream += record("clock", time, at=len(stream)) + b"half a line " + point
        stream += b"%095d end\n" % number
        number += 1
    return bytes(stream + record("end", 1000.0 + number / 700, state="succeeded"))


class Sink:
    """Takes all, and has a mark."""

    def __init__(self, mark=0):
        self._mark, self.records, self.log = mark, [], ""

    def record(self, record):
        self.records.append(record)

    async def mark(self):
        return self._mark

    async def finish(self, status, log, error):
        self.log = log.read_text()
        return True

    async def close(self):
        pass


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Returns a function that follows a job with a stream: the lines with their times, and how much was read."""
    folder = tmp_path / "job"
    folder.mkdir()
    claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
    (folder / "claim").write_text(json.dumps(claim))
    (folder / "end.json").write_text('{"state":"succeeded"}')
    read = LocalDriver.read
    monkeypatch.setattr("nemo_airflow.jobs.service.Policy", functools.partial(Policy, mark=1.0))

    def followed(stream, sink=None, logged=BEGINNING, warn=pytest.fail):
        (folder / "log").write_bytes(stream)
        lines, bytes_read = [], []

        async def counting(driver, cursors):
            chunks = await read(driver, cursors)
            bytes_read.extend(len(chunk.data) for chunk in chunks)
            return chunks

        monkeypatch.setattr(LocalDriver, "read", counting)
        executor = LocalExecutor(root=str(tmp_path))
        follower = Follower(executor, HANDLE, on_line=lines.append, warn=warn, sink=sink, logged=logged)
        assert asyncio.run(follower.run()).status.state is JobState.SUCCEEDED
        return lines, sum(bytes_read)

    return followed


def place_after(lines, offset):
    line = next(line for line in lines if line.end >= offset)
    return Place(line.end, round(line.timestamp * 1e6))


def test_lines_go_on_where_the_log_ends_and_the_rest_is_not_read(follow):
    stream = stream_of(6 * MIB)
    whole, _ = follow(stream)
    logged = place_after(whole, 5 * MIB)
    lines, size = follow(stream, logged=logged)
    assert lines == [line for line in whole if line.end > logged.offset]
    assert size < len(stream) - logged.offset + 100_000


def test_a_short_stream_is_read_again_whole(follow):
    stream = stream_of(MIB // 4)
    whole, _ = follow(stream)
    assert follow(stream, logged=place_after(whole, MIB // 8))[0] == whole


@pytest.mark.parametrize("behind", [3.0, 0.01, -0.5])
def test_records_go_on_where_the_tracker_ends(follow, behind):
    stream = stream_of(6 * MIB)
    first = Sink()
    whole, _ = follow(stream, first)
    logged = place_after(whole, 5 * MIB)
    mark = next(each.end for each in first.records if each.end >= logged.offset - behind * MIB)
    second = Sink(mark)
    lines, _ = follow(stream, second, logged)
    assert lines == [line for line in whole if line.end > logged.offset]
    needed = [each for each in first.records if each.end > mark]
    assert [each for each in second.records if each.end > mark] == needed
    assert [each.type for each in second.records[:2]] == ["start", "config"]
    assert len(second.records) < len(first.records) - (10 if behind < 1 else 0)
    assert second.log == first.log == "".join(f"{line.text}\n" for line in whole)


def test_records_are_read_from_the_beginning_where_the_tracker_has_none(follow):
    stream = stream_of(3 * MIB)
    first, second = Sink(), Sink(0)
    whole, _ = follow(stream, first)
    follow(stream, second, place_after(whole, 2 * MIB))
    assert second.records == first.records


@pytest.mark.parametrize("behind", [0, 1])
def test_job_that_wrote_nothing_more_is_recorded_whole(follow, behind):
    stream = stream_of(3 * MIB)
    stream = stream[: stream.rindex(b"\x1e")]  # nor did its runner
    first = Sink()
    whole, _ = follow(stream, first, warn=print)
    second = Sink(len(stream) - behind * MIB)
    lines, _ = follow(stream, second, place_after(whole, len(stream)), warn=print)
    assert lines == []
    assert second.log == first.log == "".join(f"{line.text}\n" for line in whole)


def test_end_of_an_earlier_start_is_not_that_of_the_job(follow):
    """The back-end has started the job again, and the end of the first start is all of it that is read."""
    first = record("start", 900.0) + b"x" * (60 << 10) + b"\n" + record("end", 990.0, state="failed")
    assert len(first) < 64 << 10
    stream = first + b"y" * (8 << 10) + b"\n" + stream_of(8 * MIB)  # more than comes at once
    whole, _ = follow(stream)
    logged = place_after(whole, 2 * MIB)
    lines, _ = follow(stream, Sink(logged.offset), logged)
    assert lines == [line for line in whole if line.end > logged.offset]


def test_copy_of_a_long_log_has_both_its_ends(follow, monkeypatch):
    monkeypatch.setattr("nemo_airflow.follow.HEAD", MIB)
    monkeypatch.setattr("nemo_airflow.follow.TAIL", 2 * MIB)
    monkeypatch.setattr("nemo_airflow.follow.KeptLog", functools.partial(KeptLog, head=MIB, piece=MIB))
    stream = stream_of(6 * MIB)
    whole, _ = follow(stream)
    sink = Sink(len(stream) - MIB)
    follow(stream, sink, place_after(whole, len(stream) - MIB))
    kept = sink.log.splitlines()
    (gap,) = [line for line in kept if line.startswith("[")]
    at = kept.index(gap)
    texts = [line.text for line in whole]
    assert kept[: at - 1] == texts[: at - 1]  # the last one is cut
    assert 0.9 * MIB < sum(len(line) + 1 for line in kept[:at]) < 1.1 * MIB
    assert kept[-10_000:] == texts[-10_000:]
    assert gap.startswith(f"[{len(stream) - 3 * MIB} bytes are left out")


_ITEMS = st.lists(
    st.one_of(
        st.sampled_from([b"a\n", b"\n", b"10%\r", b"half ", b"20%\r30%\n"]),
        st.floats(0, 100).map(lambda ts: record("clock", round(ts, 1))),
        st.floats(0, 100).map(lambda ts: record("metrics", round(ts, 1), points=[])),
    ),
    max_size=40,
)


@settings(max_examples=300)
@given(_ITEMS, st.data())
def test_a_reader_that_begins_at_the_place_of_a_line_goes_on_as_the_first(items, data):
    stream = b"".join(items)
    reader = StreamReader()
    whole = reader.feed(stream) + reader.finish()
    lines = [item for item in whole if isinstance(item, Line)]
    if not lines:
        return
    line = data.draw(st.sampled_from(lines))
    anew = StreamReader(line.end, round(line.timestamp * 1e6) / 1e6)
    rest = anew.feed(stream[line.end :]) + anew.finish()
    expected = [each for each in lines if each.timestamp > line.timestamp]
    assert [each for each in rest if isinstance(each, Line) and each.timestamp > line.timestamp] == expected
    records = [each for each in whole if isinstance(each, Record) and each.end > line.end]
    assert [each for each in rest if isinstance(each, Record)] == records
