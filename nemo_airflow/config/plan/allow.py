"""What may be imported here besides the targets of a config: ``$NEMO_AIRFLOW_ALLOW``, and the user's own code.

The rule itself is the job's: :func:`nemo_airflow.language.names.is_allowed`.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

from nemo_airflow import settings
from nemo_airflow.exceptions import PlanError, SettingsError, TargetNotAllowedError
from nemo_airflow.language import names
from nemo_airflow.language.names import check_name
from nemo_airflow.options import OPTIONS

VARIABLE = OPTIONS["allow"].variable

_OWN = "nemo_airflow"


def read_configured() -> tuple[str, ...]:
    """Returns what ``$NEMO_AIRFLOW_ALLOW`` permits: names and prefixes with commas between them.

    Raises:
        SettingsError: An entry is neither ``pkg.mod:name`` nor a prefix that ends with a dot, or is a prefix
            of Python's own modules or of this package, which would permit anything.
    """
    text = settings.allow()
    if not text.strip():
        return ()
    entries = [entry.strip() for entry in text.split(",")]
    try:
        names.check_entries(entries)
    except PlanError as error:
        raise SettingsError(f"${VARIABLE}: {error.message}") from None
    for entry in entries:
        first = entry.partition(".")[0]
        if entry.endswith(".") and (first in sys.stdlib_module_names or first == _OWN):
            whose = "of this package" if first == _OWN else "of Python's own modules"
            raise SettingsError(
                f"${VARIABLE}: {entry!r} would permit too much: {whose} list single functions, as pkg.mod:name"
            )
    return tuple(entries)


def extend_allow(allow: Iterable[str]) -> tuple[str, ...]:
    """Returns an allow-list with what is configured.

    Args:
        allow: Exact names (``pkg.mod:name``), or prefixes that end with a dot.

    Raises:
        PlanError: An entry is neither.
        SettingsError: As of :func:`configured`.
    """
    return (*names.check_entries(allow), *read_configured())


def load_code(name: str) -> Any:
    """Imports the object ``pkg.mod:name`` of a command line, if it is the user's own code or permitted.

    The user's own code is neither in Python's library nor installed: it is in
    the current folder, or on ``$PYTHONPATH``.

    Raises:
        TargetNotAllowedError: It is other code, or refers to other code; that was not imported.
        PlanError: The name is not of this form.
        ImportError: There is no such module, or it cannot be imported.
        AttributeError: There is no such name in it.
    """
    module, _, qualname = name.partition(":")
    permitted = read_configured()
    check_name(name)
    if not names.is_allowed(name, permitted) and not _is_own(module):
        raise TargetNotAllowedError(_refusal(name, module))
    try:
        found = names.resolve(name, [name])
    except PlanError as error:
        raise TargetNotAllowedError(error.message) from None
    home = getattr(found, "__module__", None) if callable(found) else None
    if isinstance(home, str) and home != module and not names.is_allowed(name, permitted):
        defined = f"{home}:{getattr(found, '__qualname__', qualname)}"
        if not names.is_allowed(defined, permitted) and not _is_own(home) and not _is_config(found):
            raise TargetNotAllowedError(_refusal(name, home))
    return found


def own_packages(names: Iterable[str]) -> tuple[str, ...]:
    """Returns prefixes that permit the packages of the targets in the user's own code; see :func:`load_code`."""
    packages = dict.fromkeys(name.partition(":")[0].partition(".")[0] for name in names)
    return tuple(f"{package}." for package in packages if _is_own(package))


def _refusal(name: str, module: str) -> str:
    first = module.partition(".")[0]
    prefix = "" if first in sys.stdlib_module_names or first == _OWN else f" or {first + '.'!r}"
    return (
        f"{name} is not allowed here: {module} is neither in the current folder nor on $PYTHONPATH; to import it, "
        f"add {name!r}{prefix} to ${VARIABLE}"
    )


def _is_config(value: Any) -> bool:
    return hasattr(type(value), "__fn_or_cls__") or hasattr(value, "__fn_or_cls__")


def _is_own(module: str) -> bool:
    """Returns whether a module is neither Python's own nor installed; imports nothing."""
    first = module.partition(".")[0]
    if first in sys.stdlib_module_names or first in sys.builtin_module_names or first == _OWN:
        return False
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None:
        return True  # the module is missing: the import reports it
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return bool(places) and not any(_is_installed(place) for place in places)


def _is_installed(place: str) -> bool:
    real = os.path.realpath(place)
    return any(real.startswith(folder + os.sep) for folder in _installed_folders())


def _installed_folders() -> set[str]:
    paths = sysconfig.get_paths()
    folders = [paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [*site.getsitepackages(), site.getusersitepackages()]
    return {os.path.realpath(folder) for folder in folders}
