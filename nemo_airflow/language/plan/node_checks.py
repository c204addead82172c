"""Checks single nodes of a plan against their forms. Imports nothing that a plan names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Set, Tuple

from nemo_airflow.language.errors import PlanError
from nemo_airflow.language.names import check_name
from nemo_airflow.language.plan.grammar import FLAGS, TARGET_KEYS, is_reserved
from nemo_airflow.language.plan.tags import SCALARS

_JUST_TARGET = ["_target_"]


def check_node(node: Any, kind: str) -> None:
    """Checks a node other than a target or a plain value, without its children.

    Args:
        node: The node.
        kind: Its form, from :func:`~nemo_airflow.language.plan.grammar.kind_of`.

    Raises:
        PlanError: The node does not match its form.
    """
    if kind == "map":
        _check_keys(node)
    elif kind == "shared":
        _check_id(node["_id_"])
    elif kind == "same":
        _check_id(node["_same_"])
    elif kind in ("_ref_", "_enum_"):
        check_name(node[kind])
        if kind == "_enum_" and "." not in node[kind].partition(":")[2]:
            raise PlanError(f"{node[kind]!r} is not of the form 'package.module:Class.MEMBER'")
    elif kind in SCALARS:
        _check_tag(kind, node[kind])
    elif kind != "list":
        _check_items(kind, node[kind])


def check_target(node: Mapping[str, Any], bare: Set[Tuple[str, ...]]) -> bool:
    """Checks a target's node; returns whether it has only a name and named arguments.

    Args:
        node: The node.
        bare: Cache of the keys of such nodes: nodes of one target mostly have the same keys.

    Raises:
        PlanError: The node does not match its form.
    """
    keys = tuple(node)
    if keys in bare:
        check_name(node["_target_"])
        return True
    _check_keys(node)
    check_name(node["_target_"])
    own = [key for key in node if is_reserved(key)]
    if own == _JUST_TARGET:
        bare.add(keys)
        return True
    unknown = [key for key in own if key not in TARGET_KEYS]
    if unknown:
        raise PlanError(f"{unknown[0]!r} is neither the name of a parameter nor a key of plans")
    if any(node.get(flag, True) is not True for flag in FLAGS) or all(flag in node for flag in FLAGS):
        raise PlanError("_partial_ and _arg_factory_ must be true or absent, and only one of them true")
    if not isinstance(node.get("_args_", []), list):
        raise PlanError("_args_ is not a list")
    if "_recipe_" in node:
        _check_recipe(node)
    _check_id(node.get("_id_", ""))
    return False


def check_value(value: Any) -> None:
    """Checks a plain value.

    Raises:
        PlanError: The number does not exist in JSON, or the text is not valid Unicode.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise PlanError(f'{value} is not JSON: write {{"_float_": "nan"}}, "inf" or "-inf"')
    if isinstance(value, str) and not value.isascii():
        _check_unicode(value)


def _check_keys(node: Mapping[Any, Any]) -> None:
    try:
        if all(map(str.isascii, node)):
            return
    except TypeError:  # not all are texts
        pass
    for key in node:
        if not isinstance(key, str):
            raise PlanError(f"the key {key!r} is not a text")
        if not key.isascii():
            _check_unicode(key)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PlanError(f"{text!r} is not valid Unicode") from None


def _check_id(name: Any) -> None:
    if not isinstance(name, str):
        raise PlanError(f"the id {name!r} is not a text")


def _check_recipe(node: Mapping[str, Any]) -> None:
    recipe = node["_recipe_"]
    texts = recipe["overrides"] if isinstance(recipe, dict) and recipe.keys() == {"overrides"} else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise PlanError('_recipe_ takes only {"overrides": [...]}, a list of texts')
    if any(flag in node for flag in FLAGS):
        raise PlanError("a recipe cannot be _partial_ or _arg_factory_: only what its factory returns can be")
    for text in texts:
        check_value(text)


def _check_tag(tag: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    try:
        fits = isinstance(value, dict) if tag == "_artifact_" else isinstance(value, str)
        if not fits and not (number and tag == "_timedelta_"):
            raise ValueError
        SCALARS[tag](value)
    except (ValueError, KeyError, ArithmeticError):
        raise PlanError(f"{value!r} is not a valid value of {tag}") from None


def _check_items(tag: str, value: Any) -> None:
    if not isinstance(value, list):
        raise PlanError(f"{tag} takes a list")
    if tag == "_dict_" and not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise PlanError("_dict_ takes a list of [key, value] pairs")
