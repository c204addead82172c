"""Lists the packages of the job's own code, whose objects a plan may name."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import List, Tuple


def prefixes(folders: Iterable[str]) -> Tuple[str, ...]:
    """Returns an allow-list entry for each package and module that is imported from one of the folders.

    A folder whose name Python would import from elsewhere, such as data named like a module of the
    standard library, has no entry. Imports nothing.

    Args:
        folders: Where the job's code is, on ``sys.path``.
    """
    found: List[str] = []
    for folder in folders:
        root = os.path.realpath(folder)
        try:
            names = sorted(os.listdir(root))
        except OSError:
            continue
        for name in names:
            module = name[: -len(".py")] if name.endswith(".py") else name
            if module == "nemo_airflow":
                continue  # this module can build plans under any allow-list
            if module.isidentifier() and _has_code(os.path.join(root, name)) and _is_from(module, root):
                found.append(f"{module}.")
    return tuple(dict.fromkeys(found))


def _has_code(path: str) -> bool:
    if os.path.isfile(path):
        return path.endswith(".py")
    try:
        return os.path.isdir(path) and any(name.endswith(".py") or _is_folder(path, name) for name in os.listdir(path))
    except OSError:
        return False


def _is_folder(path: str, name: str) -> bool:
    # A namespace package has its modules further down.
    return name.isidentifier() and os.path.isdir(os.path.join(path, name))


def _is_from(module: str, root: str) -> bool:
    import importlib.util

    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return any(os.path.realpath(place).startswith(root + os.sep) for place in places if place)
