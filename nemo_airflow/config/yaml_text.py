"""Configs as YAML, with ``_target_`` and ``_partial_`` keys as Hydra and NeMo-Run write them.

A YAML file is read event by event into a plan: nothing is imported, tags are refused, and input that
would grow without bounds is refused with its line.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any, TypeGuard

import yaml

from nemo_airflow.exceptions import PlanError
from nemo_airflow.language.names import name_from_dotted
from nemo_airflow.language.plan import grammar
from nemo_airflow.language.plan.contents import check
from nemo_airflow.language.plan.parts import plan_of

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_NODES = 1_000_000
"""Most values of a file after its aliases are replaced."""

_MAX_DEPTH = 20_000
"""Most levels of a file: libyaml's time grows with the square of the depth."""

_MOST_DIGITS = 4_000

_NULL = re.compile(r"(?:~|null|Null|NULL)?")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_SPECIAL_CHARACTERS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
"""Characters that YAML treats as line breaks or cannot hold, unless they are escaped."""

_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:str", "!")


def to_yaml(config: Any) -> str:
    """Returns a config as YAML: its set values without defaults, and shared parts as anchors.

    Templates are written as they are.

    Raises:
        PlanError: A plan cannot hold a value, with its path.
        TargetNotImportableError: A job could not import a function or class.
    """
    from nemo_airflow.config.plan import to_plan
    from nemo_airflow.config.yaml_writing import write

    return write(to_plan(config, check=False, defaults=False), _dotted, _style)


def from_yaml(source: str | os.PathLike[str], allow: Iterable[str] = ()) -> Any:
    """Returns the config that a YAML file describes, checked against the targets' annotations.

    Texts in the file become a Path, a date or an Enum, and lists a tuple, where the annotation
    wants that; they never become numbers.

    Args:
        source: The text, or the path of a file: a ``Path``, or one line that ends with ``.yaml``
            or ``.yml``.
        allow: What may be imported: exact names (``pkg.mod:name``, ``pkg.mod.name``), or prefixes
            that end with a dot.

    Raises:
        PlanError: The file is not valid, with its line.
        TargetNotAllowedError: A target is not permitted; nothing was imported.
        ConfigError: An argument is unknown, or does not fit, with its path.
    """
    from nemo_airflow.config.plan import from_plan

    return from_plan(plan_from_yaml(source), allow)


def plan_from_yaml(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the plan that a YAML file describes. Imports nothing.

    In a target with dots only, the name begins behind the last dot, or with the first part that
    has a capital letter in front: ``pkg.mod.Class.method`` is ``pkg.mod:Class.method``.

    Args:
        source: As for :func:`from_yaml`.

    Raises:
        PlanError: The file is not valid, with its line.
    """
    return plan_from_values(_read(source))


def values_from_yaml(text: str) -> Any:
    """Returns the content of a YAML document as plain values; an alias is the same object as its anchor.

    Raises:
        PlanError: It is not valid, with its line.
    """
    return _Events(text).read()


def plan_from_values(values: Any) -> dict[str, Any]:
    """Returns the plan that plain values describe, as :func:`plan_from_yaml` does of a file's.

    Raises:
        PlanError: The values do not describe a plan.
    """
    plan = plan_of(_Sharing(values).plan_root())
    check(plan)
    return plan


def _read(source: str | os.PathLike[str]) -> Any:
    is_path = not isinstance(source, str) or ("\n" not in source and source.endswith((".yaml", ".yml")))
    if not is_path:
        return _Events(str(source)).read()
    try:
        text = pathlib.Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {os.fspath(source)}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _Events(text).read()
    except PlanError as error:
        raise PlanError(f"{os.fspath(source)}: {error.message}", error.path) from error


def _scalar(text: str) -> Any:
    """Returns a plain scalar as YAML 1.2 reads it: ``no`` and ``2026-01-01`` are texts."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        if len(text) > _MOST_DIGITS:
            raise ValueError(f"the integer has more than {_MOST_DIGITS} digits: quote it")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        if math.isinf(number := float(text)):
            raise ValueError(f"{_short(text)} is more than a float can hold: write .inf for infinity")
        return number
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


class _Open:
    """A list or mapping whose end has not been read."""

    def __init__(self, value: Any, anchor: str | None) -> None:
        self.value, self.anchor, self.size, self.key = value, anchor, 1, _NO_KEY


_NO_KEY: Any = object()


class _Events:
    """Reads one YAML document, without recursion.

    Args:
        text: The document.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._root: Any = _NO_KEY

    def read(self) -> Any:
        """Returns the document as plain Python values; an alias is the same object as its anchor.

        Raises:
            PlanError: It cannot be read, with the line.
        """
        try:
            for event in yaml.parse(self._text, Loader=_LOADER):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise PlanError(f"line {line}: not YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, RecursionError) as error:
            raise PlanError(f"not YAML: {' '.join(str(error).split())}") from error
        if self._root is _NO_KEY:
            raise PlanError("the YAML document is empty")
        return self._root

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and self._root is not _NO_KEY:
            raise PlanError(f"line {line}: a second YAML document begins here: a file may have only one")
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            if known is None:
                reason = (
                    "refers to a node that contains it" if event.anchor in self._anchors else "has no anchor before it"
                )
                raise PlanError(f"line {line}: the alias *{event.anchor} {reason}")
            self._put(known[0], known[1], line)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_tag(event, line)
            if event.value == "<<" and event.implicit[0] and self._is_at_key():
                raise PlanError(f"line {line}: merge keys (<<) are not supported; write the values out")
            value = self._value(event, line)
            if event.anchor:
                self._anchors[event.anchor] = (value, 1)
            self._put(value, 1, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._check_tag(event, line)
            if len(self._open) >= _MAX_DEPTH:
                raise PlanError(f"line {line}: nested deeper than {_MAX_DEPTH} levels")
            if event.anchor:
                self._anchors[event.anchor] = None
            self._open.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            if done.anchor:
                self._anchors[done.anchor] = (done.value, done.size)
            self._put(done.value, done.size, line)

    def _put(self, value: Any, size: int, line: int) -> None:
        if not self._open:
            self._root = value
            return
        inside = self._open[-1]
        inside.size += size
        if inside.size > _MAX_NODES:
            raise PlanError(f"line {line}: more than {_MAX_NODES} values once the aliases are replaced")
        if isinstance(inside.value, list):
            inside.value.append(value)
        elif inside.key is _NO_KEY:
            if isinstance(value, (list, dict)):
                raise PlanError(f"line {line}: a key has to be a scalar, not a list or mapping")
            if value in inside.value:
                raise PlanError(f"line {line}: the key {value!r} is given twice")
            inside.key = value
        else:
            inside.value[inside.key] = value
            inside.key = _NO_KEY

    def _is_at_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].value, dict) and self._open[-1].key is _NO_KEY

    def _check_tag(self, event: Any, line: int) -> None:
        if event.tag is not None and event.tag not in _PLAIN_TAGS:
            raise PlanError(f"line {line}: the YAML tag {event.tag!r} is not allowed; use _target_ for an object")

    def _value(self, event: Any, line: int) -> Any:
        if not event.implicit[0]:  # quoted, or tagged as a text
            return event.value
        try:
            return _scalar(event.value)
        except ValueError as error:  # a number with thousands of digits, which Python will not read
            raise PlanError(f"line {line}: {str(error).split(';')[0]}") from error


class _Sharing:
    """Writes shared objects as a plan's ``_id_`` and ``_same_``.

    Args:
        root: The document; not deeper than a plan may be, and without cycles.
    """

    def __init__(self, root: Any) -> None:
        self._root = root
        self._ids: dict[int, str] = {}
        self._shared = self._in_several_places(root)

    def plan_root(self) -> Any:
        """Returns the root's node. Without recursion: each node is written into the place that its parent keeps."""
        holder: list[Any] = [None]
        stack: list[tuple[Any, Any, Any]] = [(self._root, holder, 0)]
        while stack:
            value, inside, key = stack.pop()
            if not isinstance(value, (list, dict)):
                inside[key] = _leaf(value)
                continue
            if id(value) in self._ids:
                inside[key] = {"_same_": self._ids[id(value)]}
                continue
            node, below = _opened(value)
            inside[key] = node
            if id(value) in self._shared:
                name = self._ids[id(value)] = str(len(self._ids) + 1)
                if isinstance(value, dict) and "_target_" in value:
                    node["_id_"] = name
                else:
                    inside[key] = {"_id_": name, "_value_": node}
            stack.extend(reversed(below))
        return holder[0]

    def _in_several_places(self, root: Any) -> set[int]:
        once: set[int] = set()
        twice: set[int] = set()
        stack = [root]
        while stack:
            value: Any = stack.pop()
            if not isinstance(value, (list, dict)):
                continue
            if _is_tag(value):
                held = next(iter(value.values()))
                stack.extend(held if isinstance(held, list) else [held])
            elif id(value) in once:
                twice.add(id(value))
            else:
                once.add(id(value))
                stack.extend(value if isinstance(value, list) else list(value.values()))
        return twice


def _leaf(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"_float_": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    return value


def _opened(value: Any) -> tuple[Any, list[tuple[Any, Any, Any]]]:
    """Returns the node of a list or mapping, and the values to write into it with their places."""
    if isinstance(value, list):
        items: list[Any] = [None] * len(value)
        return items, [(item, items, index) for index, item in enumerate(value)]
    if not all(isinstance(key, str) for key in value):
        pairs = [[_leaf(key), None] for key in value]
        return {"_dict_": pairs}, [(item, pair, 1) for item, pair in zip(value.values(), pairs, strict=True)]
    node = dict(value)
    for key in ("_target_", "_ref_"):
        if isinstance(node.get(key), str):
            node[key] = name_from_dotted(node[key])
    if node.get("_partial_") is False and "_target_" in node:
        del node["_partial_"]
    for key in ("_id_", "_same_", "_part_"):
        if key in node:
            raise PlanError(
                f"{key} is reserved for plans: in YAML, share a value with an anchor (&name) and aliases (*name)"
            )
    return node, [(item, node, key) for key, item in node.items() if isinstance(item, (list, dict, float))]


def _is_tag(value: Any) -> TypeGuard[dict[str, Any]]:
    """Returns whether a value is one of a plan's tags for immutable values, such as ``{"_path_": ...}``."""
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) in ("_set_", "_dict_"):
        return False
    return grammar.is_reserved(next(iter(value))) and "_target_" not in value


def _dotted(name: str) -> str:
    """Returns a target's name with dots only, where reading it back gives the same name."""
    dotted = name.replace(":", ".")
    return dotted if name_from_dotted(dotted) == name else name


def _style(text: str) -> str | None:
    """Returns the style of a text, quoted where YAML 1.1 or YAML 1.2 would read it as anything else."""
    try:
        plain = _scalar(text) == text
    except ValueError:
        plain = False
    return '"' if _SPECIAL_CHARACTERS.search(text) else "|" if "\n" in text else None if plain else "'"
