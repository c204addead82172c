"""What goes to a task's log of a job that writes more lines than anybody reads."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_airflow.jobs.flood import FloodGate
from nemo_airflow.stream import Line, StreamReader


@pytest.fixture
def gate():
    return FloodGate("log.txt has them", rate=10, burst=100)


def lines(count, begin, end):
    """Returns so many lines that are evenly written between two times."""
    return [Line(str(n), begin + (end - begin) * n / count, n) for n in range(count)]


def shown(gate, *floods):
    written = [line for each in itertools.chain(*floods) for line in gate.admit(each)]
    return [line.text for line in [*written, *gate.finish()]]


def count(texts):
    """Returns how many lines were shown, and how many were said to be left out."""
    said = [int(text.split()[1].replace(",", "")) for text in texts if "left out" in text]
    return len(texts) - len(said), sum(said)


def test_what_a_job_usually_writes_is_shown_whole(gate):
    assert shown(gate, lines(100, 1, 1), lines(600, 11, 71)) == [str(n) for n in (*range(100), *range(600))]


def test_flood_is_cut_after_its_beginning_and_said(gate):
    texts = shown(gate, lines(100_000, 1, 2))
    assert count(texts) == (100, 99_900)
    assert texts[-1] == "... 99,900 lines are left out here, more than 10 a second: log.txt has them"


def test_flood_that_lasts_is_shown_in_part_and_no_line_is_unaccounted_for(gate):
    here, away = count(shown(gate, lines(60_000, 0, 60)))
    assert here + away == 60_000
    assert 300 < here < 100 + 60 * 10 + 10


def test_lines_after_a_flood_are_shown_again(gate):
    texts = shown(gate, lines(1000, 1, 1.5), [Line("after", 20.0, 0)])
    assert texts[-2:] == ["... 900 lines are left out here, more than 10 a second: log.txt has them", "after"]


def test_whoever_reads_the_same_lines_leaves_out_the_same(gate):
    again = FloodGate("log.txt has them", rate=10, burst=100)
    flood = lines(5000, 0, 50)
    assert shown(gate, flood) == shown(again, flood)


def clock(time):
    return b"\x1e" + json.dumps({"v": 1, "type": "clock", "ts": time}).encode() + b"\n"


WRITTEN = st.lists(
    st.one_of(
        st.integers(1, 60).map(lambda count: b"step\n" * count),
        st.floats(1, 30).map(clock),
        st.sampled_from(
            [b"\n", b"half", b"50 %\r100 %\n", "größer".encode(), b"\xff\n", b'\x1e{"v": 1, "type": "tags", ']
        ),
    ),
    max_size=40,
)


@given(WRITTEN, st.lists(st.integers(0, 400), max_size=12))
def test_flood_that_is_passed_over_in_blocks_shows_the_same_as_line_by_line(written, cuts):
    stream = b"".join(written)
    cuts = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})

    def follow(*, in_blocks):
        gate, reader = FloodGate("log.txt has them", rate=10, burst=30), StreamReader()
        told, kept = [], []

        def tell(items):
            for item in items:
                kept.extend([item.text] if isinstance(item, Line) else [])
                told.extend(gate.admit(item) if isinstance(item, Line) else [item])

        for begin, end in itertools.pairwise(cuts):
            block = reader.block(stream[begin:end]) if in_blocks and gate.is_shut else None
            if block is not None and gate.leave_out(block):
                reader.take(block)
                kept.extend(block.text.decode(errors="backslashreplace").split("\n"))
            else:
                tell(reader.feed(stream[begin:end]))
        tell(reader.finish())
        return [*told, *gate.finish()], kept

    assert follow(in_blocks=True) == follow(in_blocks=False)
