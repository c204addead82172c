"""The reader gives back what the job wrote, however the bytes are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_airflow.stream import Line, Record, StreamReader


def record(kind, ts=1.0, **fields):
    return b"\x1e" + json.dumps({"v": 1, "type": kind, "ts": ts, **fields}).encode() + b"\n"


def read(data, cuts=()):
    reader = StreamReader()
    items, start = [], 0
    for cut in (*sorted(cuts), len(data)):
        items += reader.feed(data[start:cut])
        start = max(start, cut)
    return items + reader.finish()


def lines(items):
    return [item.text for item in items if isinstance(item, Line)]


STREAM = (
    record("start") + record("clock", 5.0) + "größer → ok\n".encode() + b"half"
    + record("metrics", points=[["loss", 1.0, 0, 5.0]]) + b" and half\n"
    + record("clock", 6.0) + b"10%\r20%\r30%\n" + b"windows\r\n" + b"\n" + b"last"
)  # fmt: skip


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_cuts_do_not_matter(cuts):
    whole = read(STREAM)
    assert read(STREAM, cuts) == whole
    assert lines(whole) == ["größer → ok", "half and half", "30%", "windows", "", "last"]
    assert [item.type for item in whole if isinstance(item, Record)] == ["start", "metrics"]


@given(st.lists(st.text(st.characters(blacklist_characters="\n\r\x1e", blacklist_categories=("Cs",)))), st.booleans())
def test_any_text_comes_back(texts, newline):
    data = "\n".join(texts) + ("\n" if newline else "")
    expected = data.removesuffix("\n").split("\n") if data else []
    if data == "\n":
        expected = [""]
    assert lines(read(data.encode())) == expected


def test_times_come_from_the_stream_alone_and_always_rise():
    data = record("clock", 7.0) + b"a\nb\n" + record("clock", 3.0) + b"c\n" + record("clock", 7.5) + b"d\n"
    times = [item.timestamp for item in read(data)]
    assert times == sorted(set(times))
    assert round(times[0], 6) == 7.0
    assert round(times[3], 6) == 7.5
    assert [item.timestamp for item in read(data, [3, 40, 41])] == times


def test_end_is_where_the_next_item_begins():
    for item in read(STREAM)[:-1]:
        rest = STREAM[item.end :]
        reader = StreamReader(item.end, item.timestamp)
        assert lines(reader.feed(rest) + reader.finish())[-1] == "last"
    assert read(STREAM)[-1].end == len(STREAM)


@pytest.mark.parametrize(
    "bad",
    [
        b"\x1enot json\n",
        b"\x1e[1]\n",
        b'\x1e{"type":"x"}\n',
        b'\x1e{"v":9,"type":"x","ts":1}\n',
        b'\x1e{"v":1,"type":"x","ts":"y"}\n',
    ],
)
def test_bad_record_is_a_warning_and_loses_nothing_else(bad):
    items = read(b"before\n" + bad + b"after\n")
    assert lines(items) == ["before", "after"]
    assert [item.type for item in items if isinstance(item, Record)] == ["warning"]


def test_invalid_utf8_is_shown():
    assert lines(read(b"a\xff\xfeb\n")) == ["a\\xff\\xfeb"]


def test_very_long_line_is_cut_and_complete():
    data = b"x" * (5 << 20)
    pieces = lines(read(data + b"\n", range(0, len(data), 65536)))
    assert "".join(pieces) == data.decode()
    assert len(pieces) > 4


def test_progress_bar_shows_as_it_moves_and_alike_however_it_is_cut():
    bar = b"".join(record("clock", 10.0 + second) + f"\r{second}%".encode() for second in range(31))
    data = record("clock", 9.0) + b"begin\n" + bar + b"\r100%\n" + b"end\n"
    whole = read(data)
    assert lines(whole) == ["begin", "8%", "18%", "28%", "100%", "end"]
    assert read(data, range(0, len(data), 7)) == whole


def test_line_that_does_not_redraw_itself_is_shown_when_it_ends():
    dots = b"".join(record("clock", 10.0 + second) + b"." for second in range(31))
    assert lines(read(dots + b"\n")) == ["." * 31]
