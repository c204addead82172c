"""Values from files: YAML, TOML or JSON by their ending, as plain values."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import OverrideError, PlanError
from nemo_airflow.language.nearest import nearest
from nemo_airflow.language.overrides.nodes import File
from nemo_airflow.language.overrides.paths import parse_path
from nemo_airflow.language.plan.grammar import MAX_DEPTH

ENDINGS = (".yaml", ".yml", ".toml", ".json")

_FILE = re.compile(rf"([^\n]+?(?:{'|'.join(map(re.escape, ENDINGS))}))(?::([^\n]+))?")

_LARGEST = 16 << 20
"""Most bytes of a file of values; a larger file is data, not a config."""


def as_file(text: str) -> File | None:
    """Returns the file of values that a text names (``exp.yaml``, ``all.yaml:small``); None for other texts."""
    match = _FILE.fullmatch(text.strip().removeprefix("@"))
    return None if match is None else File(match[1], match[2] or "")


def read_values(path: str | os.PathLike[str], key: str = "", folder: Path | None = None) -> Any:
    """Returns the content of a file, or the value at a path in it.

    Args:
        path: The file.
        key: Dotted path in the file; empty for all.
        folder: What a relative path is relative to.

    Raises:
        OverrideError: The file cannot be read, is not valid, or has nothing at the path.
    """
    file = (folder or Path()) / path
    shown = os.fspath(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise OverrideError(
                f"{shown} has {file.stat().st_size} bytes, more than the {_LARGEST} of a file of values"
            )
        found = _read(file)
    except OSError as error:
        raise OverrideError(f"cannot read {shown}: {error.strerror or error} (looked for {file})") from None
    except OverrideError:
        raise
    except PlanError as error:
        raise OverrideError(f"{shown}: {error.message}") from None
    except (ValueError, RecursionError) as error:
        raise OverrideError(f"{shown} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from None
    _check_depth(found, shown)
    return _at(found, key, shown) if key else found


def _read(file: Path) -> Any:
    text = file.read_bytes().decode("utf-8-sig")
    if file.suffix == ".toml":
        return tomllib.loads(text)
    if file.suffix == ".json":
        return json.loads(text, object_pairs_hook=_unique)
    from nemo_airflow.config.texts.yaml_text import values_from_yaml

    return values_from_yaml(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return found


def _check_depth(value: Any, shown: str, levels: int = 0) -> None:
    if isinstance(value, (list, dict)):
        if levels == MAX_DEPTH:
            raise OverrideError(f"{shown} is nested deeper than {MAX_DEPTH} levels")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, shown, levels + 1)


def _at(value: Any, key: str, shown: str) -> Any:
    try:
        keys = parse_path(key)
    except OverrideError as error:
        raise OverrideError(f"{key!r} is not a path in {shown}: {error.summary}") from None
    for part in keys:
        if isinstance(value, Mapping):
            names: list[Any] = list(value)
        else:
            names = list(range(len(value))) if isinstance(value, list) else []
        name = next((name for name in names if name == part or str(name) == str(part)), None)
        if name is None:
            raise OverrideError(f"{shown} has no {part!r} at {key!r}{nearest(str(part), map(str, names))}")
        value = value[name]
    return value
