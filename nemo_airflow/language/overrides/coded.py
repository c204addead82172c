"""Mappings that stand for something else: ``{_target_: pkg.mod.Net, hidden: 32}``, ``{_path_: /data}``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from nemo_airflow.language.errors import OverrideError
from nemo_airflow.language.overrides.nodes import Call, File, Items, Pairs, Quoted, Word, value_of
from nemo_airflow.language.plan.grammar import TARGET_KEYS, is_reserved

NODES = (Word, Quoted, Items, Pairs, Call, File)


class CodedCall(NamedTuple):
    """What a mapping with a ``_target_`` says.

    Attributes:
        call: The call.
        kind: ``config``, ``partial`` or ``arg_factory``.
    """

    call: Call
    kind: str


def is_code(given: Any) -> bool:
    """Returns whether a node or value is a call or a file, or a mapping with keys of plans."""
    if isinstance(given, (Call, File)):
        return True
    if isinstance(given, Pairs):
        return any(is_reserved(value_of(key)) for key, _ in given.pairs)
    return type(given) is dict and any(map(is_reserved, given))


def holds_code(root: Any) -> bool:
    """Returns whether there is such a node or mapping in a node or value."""
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if is_code(value):
            return True
        if isinstance(value, Items):
            waiting += value.items
        elif isinstance(value, Pairs):
            waiting += [item for _, item in value.pairs]
        elif type(value) in (list, tuple, dict) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return False


def read_call(given: Any, path: str) -> Optional[CodedCall]:
    """Returns the call that a mapping stands for; None for another one with keys of plans, such as a tag.

    Raises:
        OverrideError: It is no valid call.
    """
    pairs = {value_of(key): item for key, item in given.pairs} if isinstance(given, Pairs) else given
    if "_target_" not in pairs or "_recipe_" in pairs:
        return None
    if unknown := [key for key in pairs if is_reserved(key) and (key not in TARGET_KEYS or key == "_id_")]:
        raise OverrideError(f"{unknown[0]} cannot be used together with _target_", path)
    flags = {flag: plain(pairs.get(flag, False)) for flag in ("_partial_", "_arg_factory_")}
    if any(not isinstance(value, bool) for value in flags.values()) or all(flags.values()):
        raise OverrideError("_partial_ and _arg_factory_ must each be true or false, and only one of them true", path)
    kind = "partial" if flags["_partial_"] else "arg_factory" if flags["_arg_factory_"] else "config"
    named = tuple((text_of(key, path), item) for key, item in pairs.items() if key not in TARGET_KEYS)
    return CodedCall(Call(text_of(pairs["_target_"], path), tuple(_positional(pairs, path)), named), kind)


def _positional(given: Mapping[Any, Any], path: str) -> Sequence[Any]:
    items = given.get("_args_", ())
    if isinstance(items, Items):
        return items.items
    if not isinstance(items, (list, tuple)):
        raise OverrideError("_args_ must be a list of positional arguments", path)
    return items


def text_of(value: Any, path: str) -> str:
    """Returns a text that has to be the name of a target or argument.

    Raises:
        OverrideError: It is not a text.
    """
    text = value_of(value) if isinstance(value, NODES) else value
    if not isinstance(text, str):
        raise OverrideError(f"{text!r} is not the name of a target or an argument", path)
    return text


def plain(value: Any) -> Any:
    """Returns nodes as plain values."""
    if isinstance(value, NODES):
        return plain(value_of(value))
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def no_files(path: str, whose: str) -> str:
    """Returns the error message for a file that may not be read."""
    return (
        f"@{path}: overrides from {whose} may not read files: give the value itself "
        "(only the command line, and DAG files that pass folder=..., may)"
    )
