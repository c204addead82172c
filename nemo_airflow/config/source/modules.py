"""Finds modules as files and reads their definitions with griffe, without running them."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import griffe

from nemo_airflow.exceptions import TargetNotImportableError
from nemo_airflow.language.nearest import similar

_LARGEST = 4 << 20
"""Most bytes of a module that is read; a larger one is generated and not meant to be configured."""

_MOST_LINKS = 30
"""Most imports that are followed from the use of a name to its definition."""


class Source:
    """The modules under some folders.

    Args:
        folders: Where packages and modules are, in the order in which Python would look.
        folder: The first of them, if it was given and is not simply on Python's path.
    """

    def __init__(self, folders: Sequence[Path], folder: str = "") -> None:
        self.folders = tuple(folders)
        self.folder = folder

    def file(self, module: str) -> Path | None:
        """Returns the file of a module, or None where there is none."""
        parts = module.split(".")
        if not all(part.isidentifier() for part in parts):
            return None
        for folder in self.folders:
            base = folder.joinpath(*parts)
            for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
                if path.is_file():
                    return path
        return None

    def is_in_folder(self, package: str) -> bool:
        """Returns whether the given folder has a package, or a module at its top."""
        base = Path(self.folder, package)
        return base.is_dir() or base.with_name(f"{package}.py").is_file()

    def may_have(self, module: str, qualname: str) -> bool:
        """Returns whether a module may have a name whose definition cannot be found here.

        The name may be imported from a missing module, be a value, or be created when the module runs.
        """
        found = self.module(module)
        if found is None:
            return False
        return "__getattr__" in found.members or any(
            name == qualname.partition(".")[0] or name.endswith("/*") for name in found.members
        )

    def module(self, name: str) -> griffe.Module | None:
        """Returns the definitions of a module, or None where there is no such module.

        Raises:
            TargetNotImportableError: Its file cannot be read, or is not Python.
        """
        path = self.file(name)
        if path is None:
            return None
        status = path.stat()
        return _visited(name, path, status.st_mtime_ns, status.st_size)

    def find(self, module: str, qualname: str) -> tuple[griffe.Object, str, str]:
        """Returns the definition of a name, following imports, and the module and name where it is.

        Raises:
            TargetNotImportableError: There is no such module or name; the nearest names are in the message.
        """
        found = self.module(module)
        if found is None:
            where = ", ".join(str(folder) for folder in self.folders[:3])
            more = f" and {len(self.folders) - 3} more folders" if len(self.folders) > 3 else ""
            raise TargetNotImportableError(
                f"no module {module!r} under {where}{more}: give source=... with the folder of the code, "
                "or in_image=True where only the job's image has it"
            )
        defined = self.follow(found, qualname)
        if defined is None:
            names = [name for name in found.members if name.isidentifier()]
            first = qualname.split(".")[0]
            raise TargetNotImportableError(
                f"module {module!r} has no {qualname!r}{similar(first, names)}"
                if first not in found.members
                else f"{module}:{qualname} has no source here: name the module that defines it"
            )
        return defined

    def follow(self, module: griffe.Module, qualname: str, links: int = 0) -> tuple[griffe.Object, str, str] | None:
        """Returns the definition of a name in a module, or None where the source does not have it."""
        first, _, rest = qualname.partition(".")
        member = module.members.get(first)
        if member is None:
            return self._in_wildcards(module, qualname, links) or self._submodule(module, first, rest, links)
        if isinstance(member, griffe.Alias):
            return self._at(f"{member.target_path}.{rest}" if rest else member.target_path, links + 1)
        found: Any = member
        for part in filter(None, rest.split(".")):
            if part not in found.members:
                return None
            found = found.members[part]
        return (found, module.path, qualname) if not found.is_alias else None

    def _at(self, path: str, links: int) -> tuple[griffe.Object, str, str] | None:
        """Returns the definition of a dotted path: its longest beginning that is a module, then names in it."""
        if links > _MOST_LINKS:
            return None
        parts = path.split(".")
        for length in range(len(parts) - 1, 0, -1):
            module = self.module(".".join(parts[:length]))
            if module is not None:
                return self.follow(module, ".".join(parts[length:]), links)
        return None

    def _in_wildcards(self, module: griffe.Module, qualname: str, links: int) -> tuple[griffe.Object, str, str] | None:
        if links > _MOST_LINKS or qualname.startswith("_"):
            return None
        for name, member in module.members.items():
            if name.endswith("/*") and isinstance(member, griffe.Alias):
                inside = self.module(member.target_path)
                if inside is not None and (found := self.follow(inside, qualname, links + 1)):
                    return found
        return None

    def _submodule(
        self, module: griffe.Module, first: str, rest: str, links: int
    ) -> tuple[griffe.Object, str, str] | None:
        inner = self.module(f"{module.path}.{first}") if rest and links <= _MOST_LINKS else None
        return self.follow(inner, rest, links + 1) if inner is not None else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and (self.folders, self.folder) == (other.folders, other.folder)

    def __hash__(self) -> int:
        return hash((self.folders, self.folder))


def source_at(folder: str | os.PathLike[str] | None) -> Source:
    """Returns the modules of a folder, then of Python's path; of the path alone for None.

    In a DAG file, the path has the folder of the DAG bundle.
    """
    if folder is None:
        return Source([*_python_path()])
    first = Path(folder).expanduser().absolute()
    return Source([first, *_python_path()], str(first))


def packages_in(folder: str) -> list[str]:
    """Returns the packages and modules at the top of a folder of code, except those named like Python's own."""
    found = []
    for path in sorted(Path(folder).iterdir()):
        name = path.name if path.is_dir() else path.stem
        is_code = path.is_dir() or path.suffix == ".py"
        if is_code and name.isidentifier() and name not in sys.stdlib_module_names and name != "nemo_airflow":
            found.append(name)
    return found


def _python_path() -> Iterator[Path]:
    for entry in sys.path:
        path = Path(entry or ".").absolute()
        if path.is_dir():
            yield path


@functools.lru_cache(maxsize=2048)
def _visited(name: str, path: Path, mtime_ns: int, size: int) -> griffe.Module:
    if size > _LARGEST:
        raise TargetNotImportableError(f"{path} has {size} bytes, which is too large to be read as source")
    try:
        module = griffe.visit(name, filepath=path, code=path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, RecursionError, OSError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TargetNotImportableError(f"{path}{line} cannot be read: {error}") from error
    return module
