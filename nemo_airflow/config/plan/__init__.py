"""A config as a plan: canonical JSON with the same digest in every process. Reading one does not need Fiddle.

The grammar is in :mod:`nemo_airflow.language.plan.grammar`, which the job shares with us.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from nemo_airflow.exceptions import PlanError
from nemo_airflow.language.plan import contents, grammar
from nemo_airflow.language.plan.contents import check

__all__ = ["digest", "dumps", "flatten", "from_plan", "loads", "targets", "to_plan"]


def to_plan(config: Any, *, check: bool = True, defaults: bool = True) -> dict[str, Any]:
    """Returns a config as a plan.

    Args:
        config: A config, or a value with configs in it.
        check: Whether to validate the config first. If not, values may be missing, and templates in
            it are written as plain texts.
        defaults: Whether to write the defaults of parameters that are not set, where a plan can
            hold them: the plan is then a complete record of the run.

    Raises:
        ConfigError: The config is not valid.
        PlanError: A plan cannot hold a value, with its path.
        TargetNotImportableError: A job could not import a function or class.
    """
    from nemo_airflow.config.objects.validation import validate
    from nemo_airflow.config.objects.view import FiddleConfigs
    from nemo_airflow.language.plan.write import write

    if check:
        validate(config)
    return {"version": grammar.VERSION, "root": write(config, FiddleConfigs(), defaults=defaults)}


def from_plan(
    plan: Mapping[str, Any] | str | bytes, allow: Iterable[str], source: str | os.PathLike[str] | None = None
) -> Any:
    """Returns the config that a plan describes, checked against the targets' annotations.

    Args:
        plan: The plan, or its JSON, the shape of which is then checked once only.
        allow: What may be imported besides the entries of ``$NEMO_AIRFLOW_ALLOW``: exact names (``pkg.mod:name``), or
            prefixes that end with a dot.
        source: Folder of the code in which targets are read, besides Python's path; nothing is imported then, and of a
            target that is in neither any argument is taken.

    Raises:
        PlanError: The plan is not valid.
        TargetNotAllowedError: A target is not permitted; nothing was imported.
        TargetNotImportableError: A target is not there.
        ConfigError: An argument is unknown, or does not fit.
    """
    from nemo_airflow.config.plan.allow import extend_allow
    from nemo_airflow.config.plan.decoding import decode

    read = _parsed(plan) if isinstance(plan, (str, bytes)) else plan
    return decode(read, extend_allow(allow), source)


def dumps(plan: Mapping[str, Any]) -> str:
    """Returns a plan as canonical JSON: sorted keys, no spaces, the same in every process."""
    return json.dumps(plan, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(text: str | bytes) -> dict[str, Any]:
    """Reads a plan from JSON and checks its shape. Imports nothing.

    Raises:
        PlanError: The plan is not valid; the path of the wrong node is in the error.
    """
    plan = _parsed(text)
    check(plan)
    return dict(plan)


def _parsed(text: str | bytes) -> Any:
    """Returns the content of a plan's JSON, not yet checked."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise PlanError(f"nested deeper than {grammar.MAX_DEPTH} levels: {grammar.TOO_DEEP}") from None
    except UnicodeDecodeError as error:
        raise PlanError("the plan is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise PlanError(f"the plan is not JSON: {error}") from error
    except ValueError as error:  # a number with thousands of digits, which Python refuses to read
        raise PlanError(f"the plan cannot be read: {str(error).split(';')[0]}") from error


def digest(plan: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a plan's canonical JSON, in hex."""
    return hashlib.sha256(dumps(plan).encode()).hexdigest()


def targets(plan: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of everything that building the plan would import, sorted, each once; Enums by their class.

    Raises:
        PlanError: It is no valid plan.
    """
    return contents.targets_in(plan)


def flatten(plan: Mapping[str, Any], *, as_str: bool = False) -> dict[str, str]:
    """Returns a plan as texts by dotted path, as a tracker keeps parameters.

    A target stands at the path of its config, that of the root at ``_target_``; what is shared is
    written once, and is ``same as PATH`` elsewhere.

    Args:
        plan: The plan.
        as_str: Whether values are spelled as Python's ``str()`` does it (``True``, ``None``), not as in JSON.

    Raises:
        PlanError: It is no valid plan.
    """
    flat: dict[str, str] = {}
    first: dict[str, str] = {}
    later: list[tuple[str, str]] = []
    for node, kind, keys in check(plan, list_nodes=True).nodes:
        if any(isinstance(key, grammar.DictKey) for key in keys):
            continue
        path = grammar.path_text(keys)
        if kind in ("target", "shared") and "_id_" in node:
            first[node["_id_"]] = path or "_target_"
        if kind == "target" and node.get("_recipe_", {}).get("overrides"):
            flat[grammar.join(path, "_recipe_")] = json.dumps(node["_recipe_"]["overrides"], ensure_ascii=False)
        if kind == "same":
            later.append((path, node["_same_"]))
            flat[path] = ""
        elif (text := (_str_text if as_str else _leaf_text)(node, kind)) is not None:
            flat[path or ("_target_" if kind == "target" else "_value_")] = text
    flat.update((path, f"same as {first.get(name, '?')}") for path, name in later)
    return flat


def _leaf_text(node: Any, kind: str) -> str | None:
    if kind == "value":
        return node if isinstance(node, str) else json.dumps(node)
    if kind == "target":
        return str(node["_target_"])
    if kind == "_enum_":
        return str(node[kind]).rpartition(".")[2]
    if kind == "_artifact_":
        return str(grammar.SCALARS[kind](node[kind]))
    if kind == "_ref_" or kind in grammar.SCALARS:
        return str(node[kind])
    below = node if kind in ("list", "map") else node.get(kind)
    return None if below or kind == "shared" else ("{}" if kind in ("map", "_dict_") else "[]")


def _str_text(node: Any, kind: str) -> str | None:
    if kind == "value":
        return str(node)
    if kind in grammar.SCALARS:
        return str(grammar.SCALARS[kind](node[kind]))
    if kind == "_enum_":  # of the class too, as an enum has it that says nothing else
        return str(node[kind]).partition(":")[2]
    if kind in _EMPTY and not node[kind]:
        return _EMPTY[kind]
    return _leaf_text(node, kind)


_EMPTY = {"_tuple_": "()", "_set_": "set()", "_frozenset_": "frozenset()"}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise PlanError(f"the key {twice!r} is given twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise PlanError(f'{name} is not JSON: write {{"_float_": "nan"}}, "inf" or "-inf"')
