"""The interface of a packager."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow.job import Package
from nemo_airflow.packaging.store import PackageStore


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packager(abc.ABC):
    """Says which code a job gets. Plain data, buildable by Fiddle; third parties may write their own."""

    kind: ClassVar[str]
    """Names the packager where it is shown."""

    @abc.abstractmethod
    def package(self, store: PackageStore, *, root: Path | None = None) -> Package:
        """Puts the package into the store, unless it is there, and returns it.

        Args:
            store: Where archives are kept.
            root: Where the code is, for a packager that was not told.

        Raises:
            PackagingError: There is nothing to package, or it must not be.
        """

    def to_json(self) -> dict[str, Any]:
        """Returns the packager as plain JSON types, for people."""
        return {"kind": self.kind, **dataclasses.asdict(self)}
