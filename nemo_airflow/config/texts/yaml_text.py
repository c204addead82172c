"""Configs as YAML, with ``_target_`` and ``_partial_`` keys as Hydra and NeMo-Run write them.

A YAML file is read from PyYAML's events into a plan: nothing is imported, tags are refused, and input that
would grow without bounds is refused with its line.
"""

from __future__ import annotations

import math
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import yaml

from nemo_airflow.exceptions import PlanError
from nemo_airflow.language.names import name_from_dotted
from nemo_airflow.language.plan import grammar
from nemo_airflow.language.plan.contents import check

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_MAX_NODES = 1_000_000
"""Most values of a file after its aliases are replaced."""

_MAX_DEPTH = 3 * grammar.MAX_DEPTH
"""Most levels of a file: a dict with keys other than texts may take three for one level of a config."""

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
    from nemo_airflow.config.texts.yaml_writing import write

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
    return plan_from_values(*_read(source))


def values_from_yaml(text: str) -> Any:
    """Returns the content of a YAML document as plain values; an alias is the same object as its anchor.

    Raises:
        PlanError: It is not valid, with its line.
    """
    return _Events(text).read()


def plan_from_values(values: Any, shared: Collection[int] = ()) -> dict[str, Any]:
    """Returns the plan that plain values describe, as :func:`plan_from_yaml` does of a file's.

    Args:
        values: The values.
        shared: The ids of lists and mappings that are one object in several places.

    Raises:
        PlanError: The values do not describe a plan.
    """
    plan = {"version": grammar.VERSION, "root": _Plan(shared).node(values)}
    check(plan)
    return plan


def _read(source: str | os.PathLike[str]) -> tuple[Any, set[int]]:
    """Returns the values of a YAML file or text, and the ids of those that are aliased."""
    is_path = not isinstance(source, str) or ("\n" not in source and source.endswith((".yaml", ".yml")))
    if not is_path:
        return _read_text(str(source))
    try:
        text = pathlib.Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {os.fspath(source)}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return _read_text(text)
    except PlanError as error:
        raise PlanError(f"{os.fspath(source)}: {error.message}", error.path) from error


def _read_text(text: str) -> tuple[Any, set[int]]:
    events = _Events(text)
    return events.read(), events.aliased


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


def _line_of(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."


class _Events:
    """Reads one YAML document. One frame for each level.

    Args:
        text: The document.
    """

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        """Values with their sizes by anchor; None while they are read."""
        self.aliased: set[int] = set()
        """The ids of values that have aliases."""

    def read(self) -> Any:
        """Returns the document as plain Python values; an alias is the same object as its anchor.

        Raises:
            PlanError: It cannot be read, with the line.
        """
        found: list[Any] = []
        try:
            for event in self._events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if found:
                        line = _line_of(event)
                        raise PlanError(f"line {line}: a second YAML document begins here: a file may have only one")
                    found.append(self._node(next(self._events), 0)[0])
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 0
            raise PlanError(f"line {line}: not YAML: {error.problem or error.context}") from error
        except yaml.YAMLError as error:
            raise PlanError(f"not YAML: {' '.join(str(error).split())}") from error
        if not found:
            raise PlanError("the YAML document is empty")
        return found[0]

    def _node(self, event: Any, levels: int) -> tuple[Any, int]:
        """Returns the value that begins with an event, and how many values it has once its aliases are replaced."""
        line = _line_of(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        if event.tag is not None and event.tag not in _PLAIN_TAGS:
            raise PlanError(f"line {line}: the YAML tag {event.tag!r} is not allowed; use _target_ for an object")
        value: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        size = 1
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, line)
        else:
            if levels == _MAX_DEPTH:
                raise PlanError(f"line {line}: nested deeper than {grammar.MAX_DEPTH} levels: {grammar.TOO_DEEP}")
            if event.anchor:
                self._anchors[event.anchor] = None
            while not isinstance(inner := next(self._events), yaml.CollectionEndEvent):
                key = self._key(inner, value) if isinstance(value, dict) else None
                child, more = self._node(inner if key is None else next(self._events), levels + 1)
                size += more + (key is not None)
                if size > _MAX_NODES:
                    line = inner.start_mark.line + 1
                    raise PlanError(f"line {line}: more than {_MAX_NODES} values once the aliases are replaced")
                if key is None:
                    value.append(child)
                else:
                    value[key[0]] = child
        if event.anchor:
            self._anchors[event.anchor] = (value, size)
        return value, size

    def _alias(self, anchor: str, line: int) -> tuple[Any, int]:
        known = self._anchors.get(anchor)
        if known is None:
            reason = "refers to a node that contains it" if anchor in self._anchors else "has no anchor before it"
            raise PlanError(f"line {line}: the alias *{anchor} {reason}")
        self.aliased.add(id(known[0]))
        return known

    def _key(self, event: Any, mapping: dict[Any, Any]) -> tuple[Any]:
        """Returns the key of a mapping, in a tuple of one, since null is a key too."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
            raise PlanError(f"line {line}: merge keys (<<) are not supported; write the values out")
        key = [] if isinstance(event, yaml.CollectionStartEvent) else self._node(event, 0)[0]
        if isinstance(key, (list, dict)):
            raise PlanError(f"line {line}: a key has to be a scalar, not a list or mapping")
        if key in mapping:
            raise PlanError(f"line {line}: the key {key!r} is given twice")
        return (key,)

    def _scalar(self, event: Any, line: int) -> Any:
        if not event.implicit[0]:  # quoted, or tagged as a text
            return event.value
        try:
            return _scalar(event.value)
        except ValueError as error:  # a number with thousands of digits, which Python will not read
            raise PlanError(f"line {line}: {str(error).split(';')[0]}") from error


class _Plan:
    """Writes plain values as the nodes of a plan.

    Args:
        shared: The ids of lists and mappings that are one object in several places.
    """

    def __init__(self, shared: Collection[int]) -> None:
        self._shared = shared
        self._ids: dict[int, str] = {}

    def node(self, value: Any) -> Any:
        """Returns the node of a value, which has no cycles."""
        if not isinstance(value, (list, dict)):
            return _leaf(value)
        if id(value) in self._ids:
            return {"_same_": self._ids[id(value)]}
        name = ""
        if id(value) in self._shared and not _is_tag(value):
            name = self._ids[id(value)] = str(len(self._ids) + 1)
        node: Any = []
        if isinstance(value, list):
            for item in value:
                node.append(self.node(item))
        elif _is_tag(value) and isinstance(held := next(iter(value.values())), list):  # which is no value of its own
            for item in held:
                node.append(self.node(item))
            node = {next(iter(value)): node}
        elif not all(isinstance(key, str) for key in value):
            for key, item in value.items():
                node.append([_leaf(key), self.node(item)])
            node = {"_dict_": node}
        else:
            node = _mapping(value)
            for key, item in node.items():
                node[key] = self.node(item)
        if not name:
            return node
        if isinstance(value, dict) and "_target_" in value:
            node["_id_"] = name
            return node
        return {"_id_": name, "_value_": node}


def _leaf(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"_float_": "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}
    return value


def _mapping(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a mapping with what a plan writes otherwise: names of targets, and flags that are not set."""
    node = dict(value)
    for key in ("_target_", "_ref_"):
        if isinstance(node.get(key), str):
            node[key] = name_from_dotted(node[key])
    if node.get("_partial_") is False and "_target_" in node:
        del node["_partial_"]
    for key in ("_id_", "_same_"):
        if key in node:
            raise PlanError(
                f"{key} is reserved for plans: in YAML, share a value with an anchor (&name) and aliases (*name)"
            )
    return node


def _is_tag(value: Any) -> bool:
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
