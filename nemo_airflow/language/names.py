"""Names of objects, ``pkg.mod:name``: how they are checked, permitted and imported, and the name of an object.

Only names that an allow-list permits are imported.
"""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Iterable
from typing import Any, List, Optional, Tuple

from nemo_airflow.language.errors import PlanError, TargetNotAllowedError, TargetNotImportableError
from nemo_airflow.language.record import Record

RECORD = f"{Record.__module__}:{Record.__qualname__}"

ALWAYS_ALLOWED = (RECORD,)
"""Targets of this package that need no entry. Not the whole package: it can build plans under any allow-list."""

SCRIPT = "nemo_airflow.runner.script:run"
"""Runs a shell. Only who writes a task may: an override, or a file, would have it run anything."""


_DAG_FILE_PREFIX = "unusual_prefix_"
"""Prefixes with which Airflow names the module of a DAG file."""

_MOVE = "move it to a module beside the DAG file and import it from there"


def check_name(name: Any) -> None:
    """Checks that a target's name is ``pkg.mod:qual.name``.

    Raises:
        PlanError: It is not.
    """
    if not isinstance(name, str):
        raise PlanError(f"target {name!r} is not of the form 'package.module:name'")
    _check_name(name)


def is_allowed(name: str, allow: Iterable[str]) -> bool:
    """Returns whether an allow-list permits a target, by its exact name or by a prefix."""
    dotted = name.replace(":", ".")
    return any(_matches(dotted, entry) for entry in (*allow, *ALWAYS_ALLOWED))


def check_entries(allow: Iterable[str]) -> Tuple[str, ...]:
    """Returns the entries of an allow-list.

    Raises:
        PlanError: One is neither a name nor a prefix.
    """
    entries: Tuple[Any, ...] = (allow,) if isinstance(allow, str) else tuple(allow)
    for entry in entries:
        is_prefix = isinstance(entry, str) and entry.endswith(".")
        parts = entry[:-1].split(".") if is_prefix else entry.replace(":", ".", 1).split(".") if entry else []
        if not all(part.isidentifier() for part in parts) or len(parts) < (1 if is_prefix else 2):
            raise PlanError(
                f"allow has {entry!r}, which is neither a name such as 'package.module:name' "
                "nor a prefix such as 'package.'"
            )
    return entries


def resolve(name: str, allow: Iterable[str]) -> Any:
    """Imports an allowed target.

    An object that a prefix permits must also be defined under a permitted name: a module may have imported
    anything, for example ``os.system``. An exact name permits its object.

    Raises:
        TargetNotAllowedError: The allow-list does not permit it.
        TargetNotImportableError: It does not exist.
    """
    check_name(name)
    allow = tuple(allow)
    if not is_allowed(name, allow):
        raise TargetNotAllowedError(f"target {name!r} is not allowed here: add it to allow")
    module_name, _, qualname = name.partition(":")
    found: Any = _import(module_name, name)
    for number, name_part in enumerate(qualname.split(".")):
        if number and not isinstance(found, type):
            raise TargetNotAllowedError(
                f"target {name!r} goes through a {type(found).__name__}: only classes may hold a target"
            )
        try:
            found = getattr(found, name_part)
        except AttributeError:
            raise TargetNotImportableError(
                f"module {module_name!r} has no {qualname!r}, which the config names"
            ) from None
        if isinstance(found, types.ModuleType):
            raise TargetNotAllowedError(
                f"target {name!r} goes through the module {found.__name__!r}: name that module before the colon"
            )
    dotted = name.replace(":", ".")
    exact = any(not entry.endswith(".") and _matches(dotted, entry) for entry in (*allow, *ALWAYS_ALLOWED))
    home = getattr(found, "__module__", None)
    if not exact and not (isinstance(home, str) and is_allowed(f"{home}:{qualname}", allow)):
        raise TargetNotAllowedError(
            f"target {name!r} is from {home!r}, which is not allowed here: add {name!r} itself to allow"
        )
    return found


def name_from_dotted(name: str) -> str:
    """Returns a target's name with a colon between module and name, guessed where it has dots only."""
    if ":" in name or "." not in name:
        return name
    parts = name.split(".")
    capital = next((i for i, part in enumerate(parts) if i and part[:1].isupper()), len(parts) - 1)
    return f"{'.'.join(parts[:capital])}:{'.'.join(parts[capital:])}"


def names_in(module: str) -> List[str]:
    """Returns the names of the functions and classes that an imported module defines for others."""
    loaded = sys.modules.get(module)
    own = vars(loaded).items() if loaded is not None else ()
    public = [(name, value) for name, value in own if callable(value) and not name.startswith("_")]
    return [name for name, value in public if getattr(value, "__module__", None) == module]


def name_of(target: Any) -> Optional[str]:
    """Like :func:`target_name`, with None for an object that cannot be imported by a name."""
    try:
        return target_name(target)
    except TargetNotImportableError:
        return None


def target_name(target: Any) -> str:
    """Returns the name under which a function or class is imported, as ``pkg.mod:qual.name``.

    Raises:
        TargetNotImportableError: A job could not import it; the message says what to do instead.
    """
    if isinstance(target, type) and issubclass(target, Record):
        return RECORD
    if name := source_name(target):
        return name
    _refuse_bound(target)
    module = getattr(target, "__module__", None)
    qualname = getattr(target, "__qualname__", None)
    if not isinstance(qualname, str) or isinstance(target, types.GenericAlias) or not callable(target):
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
    if str(module).startswith(_DAG_FILE_PREFIX):
        raise TargetNotImportableError(f"a job cannot import {qualname} from a DAG file: {_MOVE}")
    if not isinstance(module, str) or not _is_at(target, module, qualname):
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


@functools.lru_cache(maxsize=4096)
def _check_name(name: str) -> None:
    module, colon, qualname = name.partition(":")
    if not colon or not all(part.isidentifier() for part in (*module.split("."), *qualname.split("."))):
        raise PlanError(f"target {name!r} is not of the form 'package.module:name'")
    if any(part.startswith("__") and part.endswith("__") for part in (*module.split("."), *qualname.split("."))):
        raise PlanError(f"target {name!r} has a part in double underscores, which plans may not use")


def _matches(dotted: str, entry: str) -> bool:
    return dotted.startswith(entry) if entry.endswith(".") else dotted == entry.replace(":", ".")


def _import(module_name: str, name: str) -> types.ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Where an existing module cannot import another one, that module's own traceback is shown.
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise
        message = (
            f"no module {error.name!r} for the config's target {name!r}: it is neither in the package nor installed"
        )
        raise TargetNotImportableError(message) from None


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
