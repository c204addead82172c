"""Reads the value of an override into nodes."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from nemo_airflow.language.errors import error_at
from nemo_airflow.language.overrides.nodes import MAX_NESTING, Call, File, Items, Node, Pairs, Quoted, Word, value_of
from nemo_airflow.language.overrides.quoting import QUOTED, unquote

_NAME = (
    r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*(?::[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)?"
)
_CALL = re.compile(rf"({_NAME})\(")
_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=")
_FILE = re.compile(r"@\s*(.+?\.(?:yaml|yml|toml|json))(?::(.*))?", re.DOTALL)
_QUOTED_FILE = re.compile(rf"@\s*({QUOTED})(.*)", re.DOTALL)
_QUOTED = re.compile(QUOTED, re.DOTALL)

_CLOSING = {"[": "]", "(": ")", "{": "}"}
_WORD_IN = {
    "[": re.compile(r"[^,\[\](){}]*"),
    "(": re.compile(r"[^,\[\](){}]*"),
    "call": re.compile(r"[^,\[\](){}]*"),
    "{": re.compile(r"[^,\[\](){}:]*"),
    "{:": re.compile(r"[^,\[\](){}]*"),
}


def read_value(text: str, position: int = 0) -> Node:
    """Returns the value that an override ends with.

    Args:
        text: The override.
        position: Where the value begins.

    Raises:
        OverrideError: There is no value.
    """
    return _Reader(text, position).read()


class _Frame:
    """A bracket that has not been closed.

    Args:
        kind: ``[``, ``(``, ``{`` or ``call``.
        column: Where it was opened.
        name: The factory's name, for a call.
    """

    def __init__(self, kind: str, column: int, name: str = "") -> None:
        self.kind, self.column, self.name = kind, column, name
        self.close = ")" if kind == "call" else _CLOSING[kind]
        self.items: list[Node] = []
        self.pairs: dict[Any, tuple[Any, Node]] = {}
        self.key: Any = None  # of the value that is read next
        self.comma = False  # whether one was just read

    @property
    def may_end(self) -> bool:
        """Whether it may be closed where a value could begin: when empty, or after a comma behind a value."""
        return self.key is None and (bool(self.items or self.pairs) if self.comma else not self.items)

    @property
    def place(self) -> str:
        """What may come next here."""
        return "{:" if self.kind == "{" and self.key is not None else self.kind

    def node(self) -> Node:
        """Returns the node of the closed bracket."""
        if self.kind == "call":
            if self.name == "set" and not self.items and not self.pairs:
                return Items("set", ())
            return Call(self.name, tuple(self.items), tuple(self.pairs.values()))
        if self.kind == "{":
            return Items("set", tuple(self.items)) if self.items else Pairs(tuple(self.pairs.values()))
        if self.kind == "(" and len(self.items) == 1 and not self.comma:
            return self.items[0]
        return Items("list" if self.kind == "[" else "tuple", tuple(self.items))


class _Reader:
    """Reads the value of an override.

    Args:
        text: The whole override.
        position: Where the value begins.
    """

    def __init__(self, text: str, position: int) -> None:
        self._text, self._at = text, position
        self._end = len(text.rstrip())
        self._levels = 0

    def read(self) -> Node:
        """Returns the value."""
        self._space()
        rest = self._text[self._at : self._end]
        if not rest or (rest[0] not in "[({\"'@" and not _CALL.match(rest)):
            return Word(rest)
        if rest.startswith(("{{", "{%")):  # a template that is not rendered yet
            return Word(rest)
        if rest[0] == "@" and self._file_at_end(rest) is None:
            return Word(rest)
        node = self._value(None)
        self._space()
        if self._at < self._end:
            self._fail("expected nothing more: put the whole in quotes if it is a text")
        return node

    def _value(self, frame: _Frame | None) -> Node:
        """Reads one value, in a bracket or outside of all."""
        self._space()
        if self._at >= self._end:
            expected = "a value" if frame is None else f"a value or {frame.close!r}"
            self._fail(f"expected {expected}, and the override ends")
        character = self._text[self._at]
        if character in _CLOSING:
            return self._bracket(_Frame(character, self._at), 1)
        if character in "\"'":
            return self._quoted()
        call = _CALL.match(self._text, self._at, self._end)
        if call is not None:
            return self._bracket(_Frame("call", self._at, call[1]), len(call[0]))
        return self._file(frame) if character == "@" else self._word(frame)

    def _bracket(self, frame: _Frame, width: int) -> Node:
        """Reads a list, tuple, set, dict or call that begins here, with an opening of so many characters."""
        if self._levels == MAX_NESTING:
            self._fail(f"nested deeper than {MAX_NESTING} levels")
        self._levels += 1
        self._at += width
        self._space()
        while self._text[self._at : self._at + 1] != frame.close or not frame.may_end:
            keyword = _KEYWORD.match(self._text, self._at, self._end)
            if frame.kind == "call" and frame.key is None and keyword is not None:
                self._set_key(frame, keyword[1], keyword[1])
                self._at = keyword.end()
            node = self._value(frame)
            self._space()
            if self._text[self._at : self._at + 1] == ":" and frame.kind == "{" and frame.key is None:
                if frame.items:
                    self._fail("expected ',' or '}': a set has no keys")
                if not isinstance(node, (Word, Quoted)):
                    self._fail("expected a plain key, such as a name or a number, before the colon")
                self._set_key(frame, value_of(node), node)
                self._at += 1
            elif self._place(frame, node):
                break
            self._space()
        self._at += 1
        self._levels -= 1
        return frame.node()

    def _place(self, frame: _Frame, node: Node) -> bool:
        """Puts a value into a bracket; returns whether that is closed behind it."""
        character = self._text[self._at] if self._at < self._end else ""
        if character not in (",", frame.close) or not character:
            what = f"',' or {frame.close!r}" + (" or ':'" if frame.kind == "{" and not frame.items else "")
            self._fail(f"expected {what}" + ("" if character else ", and the override ends"))
        if frame.key is not None:
            key, written = frame.key
            frame.pairs[key] = (written, node)
            frame.key = None
        else:
            if frame.pairs:
                self._fail("expected a key, as in the pairs before")
            if frame.kind == "{" and not isinstance(node, (Word, Quoted)):
                self._fail("expected a plain value before this: a set holds texts and numbers")
            frame.items.append(node)
        frame.comma = character == ","
        if frame.comma:
            self._at += 1
        return not frame.comma

    def _set_key(self, frame: _Frame, key: Any, written: Any) -> None:
        # 1, 1.0 and True are the same key in Python.
        if key in frame.pairs:
            self._fail(f"the key {key!r} is given twice")
        frame.key = (key, written)

    def _quoted(self) -> Quoted:
        match = _QUOTED.match(self._text, self._at, self._end)
        if match is None:
            self._fail(f"expected the closing {self._text[self._at]} of this text")
        found = Quoted(unquote(match[0], self._text, self._at))
        self._at = match.end()
        return found

    def _word(self, frame: _Frame | None) -> Word:
        pattern = _WORD_IN["[" if frame is None else frame.place]
        match = pattern.match(self._text, self._at, self._end)
        word = match[0].rstrip() if match else ""
        if not word:
            self._fail("expected a value")
        self._at += len(word)
        return Word(word)

    def _file_at_end(self, rest: str) -> re.Match[str] | None:
        return _FILE.fullmatch(rest) or _QUOTED_FILE.fullmatch(rest)

    def _file(self, frame: _Frame | None) -> File:
        start = self._at
        self._at += 1
        self._space()
        if self._text[self._at : self._at + 1] in ("'", '"'):
            path, key = self._quoted().text, ""
            if self._text[self._at : self._at + 1] == ":" and self._at < self._end:
                self._at += 1
                quoted = self._text[self._at : self._at + 1] in ("'", '"')
                key = self._quoted().text if quoted else self._word(frame).text
            match = _FILE.fullmatch(f"@{path}")
            if match is None or match[2] is not None:
                self._fail("expected the name of a file that ends with .yaml, .yml, .toml or .json", start)
            return File(path, key)
        match = _FILE.fullmatch(f"@{self._file_word(frame)}")
        if match is None:
            self._fail("expected the name of a file that ends with .yaml, .yml, .toml or .json", start)
        return File(match[1].strip(), (match[2] or "").strip())

    def _file_word(self, frame: _Frame | None) -> str:
        if frame is None:
            word = self._text[self._at : self._end]
            self._at = self._end
            return word
        return self._word(frame).text

    def _space(self) -> None:
        while self._at < self._end and self._text[self._at].isspace():
            self._at += 1

    def _fail(self, message: str, column: int | None = None) -> NoReturn:
        raise error_at(message, self._text, self._at if column is None else column)
