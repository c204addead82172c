"""Packages a Python distribution: one that is installed here, or a wheel."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.content import FILE, PROGRAM, File, blob_id
from nemo_airflow.packaging.disk import identify_files
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import Content

_BINARY = (".so", ".pyd", ".dylib", ".dll")
_OF_THE_INSTALLER = {"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
"""Metadata files that describe the machine of an installation, not the distribution."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistributionPackager(ContentPackager):
    """Ships a pure Python distribution as a job can import it: its modules, and its metadata.

    Its dependencies are not shipped. A version has the same digest from a wheel and from an installation.

    Attributes:
        name: Name of an installed distribution, as ``pip list`` shows it.
        wheel: Path of a wheel, instead of a name.
    """

    kind: ClassVar[str] = "distribution"

    name: str = ""
    wheel: str = ""

    def __post_init__(self) -> None:
        if bool(self.name) == bool(self.wheel):
            raise PackagingError("DistributionPackager needs the name of an installed distribution, or a wheel")

    @contextlib.contextmanager
    def content(self, root: Path | None, notes: Notes) -> Iterator[Content]:
        """See :meth:`ContentPackager.content`."""
        if self.name:
            files = self._installed(notes)
            yield Content(lambda: files)
        else:
            path = Path(self.wheel).expanduser()
            try:
                with zipfile.ZipFile(path) as archive:
                    found = self._in_wheel(archive)
                    yield Content(lambda: found)
            except (OSError, zipfile.BadZipFile) as error:
                raise PackagingError(f"wheel {path} cannot be read: {error}") from error

    def _installed(self, notes: Notes) -> list[File]:
        try:
            distribution = importlib.metadata.distribution(self.name)
        except importlib.metadata.PackageNotFoundError as error:
            raise PackagingError(f"no distribution {self.name!r} is installed here: see `pip list`") from error
        if source := _editable(distribution):
            raise PackagingError(
                f"{self.name} is an editable install of {source}: "
                f"package that folder, with GitArchivePackager(path={source!r}) or PatternPackager"
            )
        self._refuse_binary(distribution.read_text("WHEEL") or "", map(str, distribution.files or ()))
        base = Path(str(distribution.locate_file("")))
        paths = [str(file) for file in distribution.files or () if _is_shipped(PurePosixPath(file))]
        if not paths:
            raise PackagingError(
                f"{self.name} has no list of its files (RECORD), like all that the system's package manager installs: "
                "give a wheel, or install it with pip"
            )
        return identify_files(base, ((path, None) for path in sorted(set(paths))), notes)

    def _in_wheel(self, archive: zipfile.ZipFile) -> list[File]:
        names = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        about = next((name for name in names if name.endswith(".dist-info/WHEEL") and name.count("/") == 1), None)
        if about is None:
            raise PackagingError(f"{self.wheel} is not a wheel: it has no .dist-info/WHEEL")
        self._refuse_binary(archive.read(about).decode("utf-8", "replace"), names)
        source = _Wheel(archive)
        files = []
        for name, info in names.items():
            path = _installed_path(name)
            if path is not None and _is_shipped(PurePosixPath(path)):
                mode = PROGRAM if info.external_attr >> 16 & 0o100 else FILE
                files.append(File(path, mode, blob_id(archive.read(name)), info.file_size, source, name))
        return files

    def _refuse_binary(self, about: str, paths: Iterable[str]) -> None:
        compiled = sorted(path for path in paths if path.endswith(_BINARY) or ".so." in path)
        if compiled or "root-is-purelib: false" in about.lower():
            what = f"has compiled files, such as {compiled[0]}" if compiled else "is built for one platform"
            raise PackagingError(f"{self.name or self.wheel} {what}: install it in the job's image, or environment")


class _Wheel:
    """The members of a wheel."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @contextlib.contextmanager
    def reading(self, files: Sequence[File]) -> Iterator[Iterator[Iterable[bytes]]]:
        """See :meth:`~nemo_airflow.packaging.content.Source.reading`."""
        read: Callable[[str], bytes] = self._archive.read
        yield ((read(file.at),) for file in files)


def _installed_path(name: str) -> str | None:
    """Returns the path of a wheel's member beside the modules, or None where it is installed elsewhere."""
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    scheme, _, path = rest.partition("/")
    return path if scheme in ("purelib", "platlib") else None


def _is_shipped(path: PurePosixPath) -> bool:
    if ".." in path.parts or path.is_absolute() or path.suffix == ".pyc":
        return False  # for example a script, which is useless elsewhere, or bytecode
    return not (path.parent.name.endswith(".dist-info") and path.name in _OF_THE_INSTALLER)


def _editable(distribution: importlib.metadata.Distribution) -> str:
    """Returns the folder of an editable install, or an empty string."""
    about = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not (about.get("dir_info") or {}).get("editable"):
        return ""
    return unquote(urlsplit(about.get("url", "")).path)
