"""The interface of a packager."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow import settings
from nemo_airflow.exceptions import PackagingError
from nemo_airflow.job import Package
from nemo_airflow.packaging.archive import FORMATS, GZIP, ZSTD, writes_zstd
from nemo_airflow.packaging.bases import Bases
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import Content, pack
from nemo_airflow.store import PackageStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packager(abc.ABC):
    """Chooses the code that a job gets. Plain data that Fiddle can build; third parties may write their own."""

    kind: ClassVar[str]
    """The packager's name for people."""

    @abc.abstractmethod
    def package(self, store: PackageStore, *, root: Path | None = None) -> Package:
        """Puts the package into the store, unless it is already there, and returns it.

        Args:
            store: Where archives are kept.
            root: Folder of the code, for a packager without a path.

        Raises:
            PackagingError: There is nothing to package, or the packager refuses it.
        """

    def to_json(self) -> dict[str, Any]:
        """Returns the packager as plain JSON types, for people."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContentPackager(Packager):
    """A packager that lists files; the packing is the same for all of them.

    Attributes:
        max_size: Bytes that the files may have together, unpacked; 1 GiB.
        format: ``tar.gz`` or ``tar.zst``; ``$NEMO_AIRFLOW_PACKAGE_FORMAT`` when None. Without both, a new package
            is ``tar.zst`` where the job is known to read it, else ``tar.gz``.
    """

    max_size: int = 1 << 30
    format: str | None = None

    @property
    def takes_zstd(self) -> bool:
        """Whether jobs that read ``tar.zst`` get it: if no format is set, and this environment can write it."""
        return not (self.format or settings.package_format()) and writes_zstd()

    @abc.abstractmethod
    def content(self, root: Path | None, notes: Notes) -> contextlib.AbstractContextManager[Content]:
        """Yields the content to pack.

        Args:
            root: Folder of the code, for a packager without a path.
            notes: Cache for the next packaging.

        Raises:
            PackagingError: There is nothing to package, or the packager refuses it.
        """

    def package(
        self, store: PackageStore, *, root: Path | None = None, reads_zstd: bool = False, bundle: str = ""
    ) -> Package:
        """See :meth:`Packager.package`.

        Args:
            store: Where archives are kept.
            root: Folder of the code, for a packager without a path.
            reads_zstd: Whether the job is known to read ``tar.zst``.
            bundle: Name of the DAG bundle of which the code is a version, if it is one.
        """
        notes = self.notes(store, root)
        with self.content(root, notes) as content:
            package = pack(content, store, self.bases(store, root, bundle), self.formats(reads_zstd), self.max_size)
        notes.save()
        return package

    def notes(self, store: PackageStore, root: Path | None) -> Notes:
        """Returns this packager's notes on this code."""
        about = json.dumps(self.to_json(), sort_keys=True, default=str)
        return Notes(store.folder, f"{about}\n{Path.cwd()}\n{root}")

    def bases(self, store: PackageStore, root: Path | None, bundle: str) -> Bases:
        """Returns the packages of earlier versions of this code, of which a new one can be packed as changes."""
        folder = Path(getattr(self, "path", None) or root or "").expanduser().absolute()
        return Bases(store, self.to_json(), f"bundle {bundle}" if bundle else f"folder {folder}")

    def formats(self, reads_zstd: bool = False) -> tuple[str, ...]:
        """Returns the formats in which an existing archive may be; a new one is packed in the first.

        Raises:
            PackagingError: The configured format is not one of these.
        """
        if reads_zstd and self.takes_zstd:
            return (ZSTD, GZIP)
        format = self.format or settings.package_format() or GZIP
        if format not in FORMATS:
            where = "format" if self.format else "$NEMO_AIRFLOW_PACKAGE_FORMAT"
            raise PackagingError(f"{where}={format!r} is not one of {', '.join(FORMATS)}")
        return (format,)
