"""How a file can be shown, and the rows of one that is a table. Standard library only."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeAlias

from nemo_airflow.plugin.api.answers import Answer

Kind: TypeAlias = Literal["image", "table", "text", "json", "markdown", "html", "log", "unknown"]

_ROWS, _COLUMNS, _CELL = 200, 100, 300
"""What a table shows at most: rows, columns, and characters of a cell."""

_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "svg", "bmp", "avif"), "image"),
    **dict.fromkeys(("csv", "tsv", "jsonl", "ndjson"), "table"),
    **dict.fromkeys(("json", "geojson", "ipynb"), "json"),
    **dict.fromkeys(("md", "markdown"), "markdown"),
    **dict.fromkeys(("html", "htm"), "html"),
    **dict.fromkeys(("log", "out", "err"), "log"),
    **dict.fromkeys(
        ("txt", "py", "yaml", "yml", "toml", "ini", "cfg", "conf", "sh", "diff", "patch", "xml", "sql", "r", "c", "cpp",
         "h", "rst", "tex", "env", "mlmodel"),
        "text",
    ),
}  # fmt: skip
_LOG = re.compile(r"log(_\d+)?\.txt")
_BINARY = frozenset(
    {"bin", "pt", "pth", "ckpt", "safetensors", "onnx", "npy", "npz", "pkl", "joblib", "parquet", "arrow", "h5", "zip",
     "gz", "tgz", "tar", "zst", "xz", "bz2", "pdf", "mp4", "wav", "nemo", "so", "whl"}
)  # fmt: skip


class Table(Answer):
    """The first rows of a table.

    Attributes:
        columns: The names of its columns.
        rows: A text for each cell; shorter where a row has fewer.
        more_rows: Whether there are more rows.
        more_columns: How many columns are left out.
    """

    columns: list[str]
    rows: list[list[str]]
    more_rows: bool
    more_columns: int


def kind_of(name: str) -> Kind:
    """Returns how a file of a name is shown; a text where the name does not tell, which its content may contradict."""
    if _LOG.fullmatch(name):
        return "log"
    stem, dot, ending = name.rpartition(".")
    if not dot or not stem:
        return "text"
    ending = ending.lower()
    return _KINDS.get(ending) or ("unknown" if ending in _BINARY else "text")


def is_text(data: bytes) -> bool:
    """Returns whether the beginning of a file is a text."""
    return b"\0" not in data


def read_table(name: str, text: str, is_cut: bool) -> Table | None:
    """Returns the rows of a table; None where it is none, or cannot be read.

    Args:
        name: The file's name.
        text: Its text, or the beginning of it.
        is_cut: Whether that is only the beginning: its last line is left out then.
    """
    if is_cut:
        text = text.rpartition("\n")[0]
    ending = name.rpartition(".")[2].lower()
    try:
        columns, rows = _of_json(text) if ending in ("jsonl", "ndjson") else _of_csv(text, ending)
    except (csv.Error, ValueError):
        return None
    if not columns:
        return None
    return Table(
        columns=[column[:_CELL] for column in columns[:_COLUMNS]],
        rows=[[cell[:_CELL] for cell in row[:_COLUMNS]] for row in rows[:_ROWS]],
        more_rows=is_cut or len(rows) > _ROWS,
        more_columns=max(len(columns) - _COLUMNS, 0),
    )


def _of_csv(text: str, ending: str) -> tuple[list[str], list[list[str]]]:
    first = text.partition("\n")[0]
    delimiter = "\t" if ending == "tsv" else ";" if first.count(";") > first.count(",") else ","
    rows = csv.reader(io.StringIO(text), delimiter=delimiter)
    columns = next(rows, [])
    return columns, [row for row, _ in zip(filter(None, rows), range(_ROWS + 1), strict=False)]


def _of_json(text: str) -> tuple[list[str], list[list[str]]]:
    records: list[Mapping[str, Any]] = []
    for line, _ in zip(filter(str.strip, _lines(text)), range(_ROWS + 1), strict=False):
        record = json.loads(line)
        records.append(record if isinstance(record, Mapping) else {"value": record})
    columns = list(dict.fromkeys(str(name) for record in records for name in record))
    return columns, [[_cell(record.get(column, "")) for column in columns] for record in records]


def _lines(text: str) -> Iterator[str]:
    yield from text.split("\n")


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
