"""Every config that was run, stored by its digest for later diffs and pages."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError, SettingsError

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class ConfigVersions:
    """A folder of plans, ``<aa>/<digest>.json``; each is written once and never changed.

    Attributes:
        folder: The folder; made when the first plan is saved.
    """

    folder: Path = dataclasses.field(default_factory=lambda: settings.home() / "configs")

    def save(self, plan: Mapping[str, Any]) -> str:
        """Stores a plan and returns its digest. Safe in parallel: a reader sees a whole file or none.

        Raises:
            SettingsError: It cannot be written.
        """
        digest = plans.digest(plan)
        file = self._file(digest)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with contextlib.suppress(PermissionError):  # of another user
                os.utime(file)  # run again: kept longer
            return digest
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".", dir=file.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(plans.dumps(plan))
                Path(name).replace(file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise SettingsError(f"cannot keep the config in {self.folder}: {error.strerror or error}") from error
        return digest

    def load(self, digest: str) -> dict[str, Any]:
        """Returns the plan of a digest, or of the beginning of one. Imports nothing.

        Raises:
            ConfigError: None or several have it, or the file does not match its digest.
        """
        found = self.find(digest)
        try:
            plan = plans.loads(self._file(found).read_bytes())
        except OSError as error:
            raise ConfigError(f"config {found} cannot be read in {self.folder}: {error.strerror}") from error
        if plans.digest(plan) != found:
            raise ConfigError(
                f"the file of config {found} in {self.folder} does not match its digest: delete it, and run it again"
            )
        return plan

    def find(self, prefix: str) -> str:
        """Returns the whole digest that begins with a prefix.

        Raises:
            ConfigError: None or several do.
        """
        if not re.fullmatch(r"[0-9a-f]{4,64}", prefix):
            raise ConfigError(f"{prefix!r} is not the digest of a config: give at least its first 4 hex digits")
        found = sorted(file.stem for file in (self.folder / prefix[:2]).glob(f"{prefix}*.json"))
        if len(found) != 1:
            how = "no config" if not found else f"{len(found)} configs, {found[0][:12]} and {found[1][:12]} among them,"
            raise ConfigError(f"{how} in {self.folder} with a digest that begins with {prefix}")
        return found[0]

    def list(self) -> list[str]:
        """Returns the digests of all stored configs, the newest first."""
        found = []
        for file in self.folder.glob("??/*.json"):
            with contextlib.suppress(FileNotFoundError):  # another process deletes it
                if _DIGEST.fullmatch(file.stem):
                    found.append((-file.stat().st_mtime_ns, file.stem))
        return [digest for _, digest in sorted(found)]

    def find_unused(self, before: float, keep: Collection[str]) -> Iterator[Path]:
        """Yields the files of plans that were not run since a time, and of those that were never written whole.

        Args:
            before: The time, in seconds since the epoch.
            keep: Digests of plans that stay at any age.
        """
        for file in self.folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if file.stem not in keep and file.stat().st_mtime < before:
                    yield file

    def _file(self, digest: str) -> Path:
        return self.folder / digest[:2] / f"{digest}.json"
