"""Names functions and classes for plans, and refuses those that a job could not import."""

from __future__ import annotations

import functools
import sys
import types
from typing import Any

from nemo_airflow.exceptions import TargetNotImportableError
from nemo_airflow.language.record import Record

_RECORD = f"{Record.__module__}:{Record.__qualname__}"

_DAG_FILE_PREFIX = "unusual_prefix_"
"""Prefixes with which Airflow names the module of a DAG file."""

_MOVE = "move it to a module beside the DAG file and import it from there"


def target_name(target: Any) -> str:
    """Returns the name under which a job imports a function or class, as ``pkg.mod:qual.name``.

    Raises:
        TargetNotImportableError: A job could not import it; the message says what to do instead.
    """
    if isinstance(target, type) and issubclass(target, Record):
        return _RECORD
    if name := source_name(target):
        return name
    _refuse_bound(target)
    module = getattr(target, "__module__", None)
    qualname = getattr(target, "__qualname__", None)
    if qualname is None or isinstance(target, types.GenericAlias) or not callable(target):
        raise TargetNotImportableError(f"{_kind(target)} is not a function or class that a job can import by name")
    if isinstance(target, types.BuiltinMethodType) and module is None:
        module = getattr(target.__self__, "__module__", None)
    shown = f"{module}.{qualname}"
    if qualname.endswith("<lambda>"):
        raise TargetNotImportableError(
            "a job cannot import a lambda: define a function in a module beside the DAG file"
        )
    if "<locals>" in qualname:
        message = f"a job cannot import {shown}, which is defined inside a function: {_MOVE}"
        raise TargetNotImportableError(message)
    if module == "__main__":
        raise TargetNotImportableError(f"a job cannot import {qualname} from __main__: {_MOVE}")
    if isinstance(module, str) and module.startswith(_DAG_FILE_PREFIX):
        raise TargetNotImportableError(f"a job cannot import {qualname} from a DAG file: {_MOVE}")
    if module is None or not _is_at(target, module, qualname):
        message = (
            f"a job cannot import this {_kind(target)}, since {shown} is something else: {_MOVE}, under its own name"
        )
        raise TargetNotImportableError(message)
    return f"{module}:{qualname}"


def source_name(target: Any) -> str:
    """Returns ``pkg.mod:name`` of a stand-in that was read from a source, or an empty text for a real object."""
    own = getattr(target, "__dict__", {})
    return str(own.get("__nemo_source__", ""))


def source_folder(target: Any) -> str:
    """Returns the folder from which a target was read, if it was given and is not simply on Python's path."""
    own = getattr(target, "__dict__", {})
    return str(own.get("__nemo_folder__", ""))


def short_name(target: Any) -> str:
    """Returns the plain name of a function or class, for people."""
    name = str(getattr(target, "__qualname__", None) or type(target).__name__)
    return name.removesuffix(".__record__")


def _refuse_bound(target: Any) -> None:
    if isinstance(target, functools.partial):
        message = "a job cannot import a functools.partial: use Partial(function, ...) with the same arguments"
        raise TargetNotImportableError(message)
    if isinstance(target, types.MethodType) and not isinstance(target.__self__, type):
        name = f"{type(target.__self__).__qualname__}.{target.__name__}"
        message = (
            f"a job cannot import {name} bound to an object: write a function in a module beside the DAG file "
            "that makes the object and calls it"
        )
        raise TargetNotImportableError(message)


def _is_at(target: Any, module: str, qualname: str) -> bool:
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found is target or (found is not None and isinstance(target, _METHODS) and found == target)


_METHODS = (types.MethodType, types.BuiltinMethodType)


def _kind(target: Any) -> str:
    if isinstance(target, type):
        return "class"
    if isinstance(target, types.FunctionType):
        return "function"
    return f"{type(target).__name__} object"
