"""What the runner writes to its standard output."""

import json

import pytest

from nemo_airflow.runner.stream_writer import MARK, StreamWriter


@pytest.fixture
def written(tmp_path):
    """Opens a writer whose clock stands still, on a file; returns both."""
    path = tmp_path / "stream"
    with path.open("wb", buffering=0) as file:
        yield StreamWriter(file.fileno(), now=lambda: 1000.0), path


def records(stream):
    """Returns each record with the offset at which it stands."""
    found = []
    position = stream.find(MARK)
    while position >= 0:
        end = stream.index(b"\n", position)
        found.append((position, json.loads(stream[position + 1 : end])))
        position = stream.find(MARK, end)
    return found


def test_last_record_says_where_it_stands(written):
    writer, path = written
    writer.output(b"a line\n")
    kept = writer.finish("end", {"state": "succeeded"})
    position, record = records(path.read_bytes())[-1]
    assert record["at"] == position
    assert json.loads(kept) == record


def test_any_excerpt_of_a_burst_can_be_placed(written):
    writer, path = written
    lines = b"".join(b"line %d\n" % number for number in range(1000))
    for _ in range(200):
        writer.output(lines)
    stream = path.read_bytes()
    places = [position for position, record in records(stream) if record["at"] == position]
    assert len(places) == len(records(stream)) > 5
    assert max(after - before for before, after in zip(places, [*places[1:], len(stream)], strict=True)) < 300_000
