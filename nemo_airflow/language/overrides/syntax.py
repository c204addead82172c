"""Parses one override, ``path operator value``.

The grammar is the same on the command line, in the trigger form, in operators, in YAML files and in
the job. Reading does not recurse, and raises only
:class:`~nemo_airflow.language.errors.OverrideError`.

The path is read in :mod:`~nemo_airflow.language.overrides.paths`, the value in
:mod:`~nemo_airflow.language.overrides.reader`, into the nodes of :mod:`~nemo_airflow.language.overrides.nodes`; what
operators do is in :mod:`~nemo_airflow.language.overrides.operators`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Optional, Tuple

from nemo_airflow.language.errors import OverrideError, error_at
from nemo_airflow.language.overrides.nodes import Node, value_of
from nemo_airflow.language.overrides.operators import OPERATORS
from nemo_airflow.language.overrides.paths import Key, format_path, read_path
from nemo_airflow.language.overrides.reader import read_value

MAX_TEXT = 100_000
"""Most characters of an override."""


@dataclasses.dataclass(frozen=True)
class Override:
    """One override.

    Attributes:
        path: The keys that lead to the place.
        operator: One of :data:`~nemo_airflow.language.overrides.operators.OPERATORS`.
        node: The value as written; None for ``~=`` without a value, which removes the place itself.
        text: The whole override, for errors.
        columns: Where each key begins in the text.
        column: Where the value begins in the text.
    """

    path: Tuple[Key, ...]
    operator: str
    node: Optional[Node]
    text: str = dataclasses.field(default="", compare=False)
    columns: Tuple[int, ...] = dataclasses.field(default=(), compare=False)
    column: int = dataclasses.field(default=0, compare=False)

    @property
    def value(self) -> Any:
        """The value without regard to an annotation; see :func:`~nemo_airflow.language.overrides.nodes.value_of`."""
        return None if self.node is None else value_of(self.node)

    @property
    def raw(self) -> str:
        """The value's own text, for a place that takes a text."""
        return self.text[self.column :].strip()

    @property
    def place(self) -> str:
        """The path as text."""
        return format_path(self.path)


def parse_override(text: str) -> Override:
    """Reads an override: ``model.hidden=64``, ``layers[-1]*=2``, ``optimizer=adam(lr=0.1)``, ``model.name~=``.

    Args:
        text: The override. ``~path`` means ``path~=``.

    Raises:
        OverrideError: It is not an override; the message has the place and what was expected there.
    """
    if not isinstance(text, str):
        raise OverrideError(f"an override is a text of the form path=value, not {type(text).__name__}")
    if len(text) > MAX_TEXT:
        raise OverrideError(f"an override of {len(text)} characters is too long: the limit is {MAX_TEXT}")
    start = len(text) - len(text.lstrip())
    removes = text[start : start + 1] == "~"
    path, columns, position = read_path(text, start + 1 if removes else start)
    if position == len(text) and removes:
        return Override(path, "~=", None, text, columns, position)
    if removes:
        raise error_at("expected the end of the text after ~path: to remove a value, write path~=value", text, position)
    if position == len(text):
        raise error_at("not of the form path=value: expected one of " + " ".join(OPERATORS), text, len(text.rstrip()))
    operator = text[position : position + 2] if text[position] != "=" else "="
    position += len(operator)
    if operator == "~=" and not text[position:].strip():
        return Override(path, operator, None, text, columns, position)
    node = read_value(text, position)
    return Override(
        path, operator, node, text, columns, position + len(text[position:]) - len(text[position:].lstrip())
    )


def parse_value(text: str) -> Node:
    """Reads a value alone: ``adam(lr=0.1)``, ``@optimizers.yaml:adam``, ``[1, 2]``.

    Raises:
        OverrideError: It is not a value.
    """
    if len(text) > MAX_TEXT:
        raise OverrideError(f"a value of {len(text)} characters is too long: the limit is {MAX_TEXT}")
    return read_value(text)
