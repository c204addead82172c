"""The messages that the page of operations explains are those that the code writes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nemo_airflow
from nemo_airflow.job import FailureKind

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## Messages")[2], re.MULTILINE)
VALUE = "\0"
"""Stands in a text of the code for what is filled in when it is written."""


def texts_of(file: Path) -> Iterator[str]:
    """Yields the texts of a module, f-strings and those of the logger with a mark for each value."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else VALUE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"%[sd]", VALUE, node.value)


TEXTS = "\n".join(text for file in Path(nemo_airflow.__file__).parent.rglob("*.py") for text in texts_of(file))


def pattern(message):
    """Returns a pattern of the texts that become this message: ``...`` is a value, or stands there as it is."""
    parts = [re.escape(part.strip()) for part in message.removesuffix("...").split("...")]
    return rf"[^\n]*?(?:{VALUE}|\.\.\.)[^\n]*?".join(parts)


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_that_the_code_writes(message):
    assert re.search(pattern(message), TEXTS)


def test_a_message_that_the_code_does_not_write_is_found():
    assert len(MESSAGES) > 15
    assert not re.search(pattern("job ... did not end ... s after it was asked to: look at it by hand"), TEXTS)


def test_every_kind_of_failure_is_explained():
    page = (ROOT / "docs/executors.md").read_text()
    assert [kind.value for kind in FailureKind if f"| `{kind.value}` |" not in page] == []
