"""Packages the code of a DAG for its jobs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.definitions.context import Context

from nemo_airflow import settings
from nemo_airflow.job import Package
from nemo_airflow.packaging.base import ContentPackager, Packager
from nemo_airflow.packaging.git.packager import GitArchivePackager
from nemo_airflow.packaging.hybrid import HybridPackager
from nemo_airflow.packaging.patches import keep_apart
from nemo_airflow.store import PackageStore
from nemo_airflow.store.address import publish


class PackagingHook(BaseHook):
    """Packages the code of a DAG's repository into the package store.

    Args:
        packager: The packager.
        store: The package store; ``<home>/packages`` when None.
        reads_zstd: Whether the job is known to read ``tar.zst``: a new package then has this format, unless another is
            configured.
        log: What to tell people by instead of the task's logger.
    """

    def __init__(
        self,
        packager: Packager,
        store: PackageStore | None = None,
        *,
        reads_zstd: bool = False,
        log: Any = None,
    ) -> None:
        super().__init__()
        self._say = log or self.log
        self.packager = packager
        self.reads_zstd = reads_zstd
        self.store = store or PackageStore(settings.packages_folder())

    def package(self, context: Context) -> Package:
        """Returns the package of the task's code; see :meth:`package_folder`.

        A packager without a path uses the repository of the DAG's bundle, at the bundle's version
        if it has one.
        """
        bundle = getattr(context["ti"], "bundle_instance", None)
        packager = _at_version(self.packager, bundle) if bundle is not None else self.packager
        return self.package_folder(bundle_folder(context), packager, bundle=str(getattr(bundle, "name", None) or ""))

    def package_folder(self, root: Path, packager: Packager | None = None, *, bundle: str = "") -> Package:
        """Returns the package of the code in a folder; see :meth:`Packager.package`.

        If machines share a store (``$NEMO_AIRFLOW_STORE``), the package is put there too.

        Args:
            root: The folder that a packager without a path uses.
            packager: A packager instead of this hook's own.
            bundle: Name of the DAG bundle to which the folder belongs.
        """
        packager = packager or self.packager
        if isinstance(packager, ContentPackager):
            package = packager.package(self.store, root=root, reads_zstd=self.reads_zstd, bundle=bundle)
        else:
            package = packager.package(self.store, root=root)
        package = keep_apart(package, self.store, self._say.warning)
        publish(package)
        changes = " with uncommitted changes" if package.dirty else ""
        changes += f" and {len(package.included)} files that git does not track" if package.included else ""
        changes += f" without {', '.join(package.excluded)}" if package.excluded else ""
        self._say.info(
            "Package %s: %d bytes, commit %s%s",
            package.digest[:12],
            package.size,
            package.commit[:12] or "none",
            changes,
        )
        return package

    def get_conn(self) -> PackageStore:
        """Returns the package store."""
        return self.store


def bundle_folder(context: Context) -> Path:
    """Returns the folder of the DAG's bundle, or the DAG file's folder if it runs without a bundle."""
    bundle = getattr(context["ti"], "bundle_instance", None)
    return Path(bundle.path) if bundle is not None else Path(context["dag"].fileloc).parent


def _at_version(packager: Packager, bundle: Any) -> Packager:
    """Returns the packager for a git bundle's bare clone: the checkout of a version may not have its ``.git``."""
    if isinstance(packager, HybridPackager):
        parts: dict[str, Any] = {
            prefix: [_at_version(each, bundle) for each in packagers]
            for prefix, packagers in packager.by_prefix().items()
        }
        return dataclasses.replace(packager, sub_packagers=parts)
    if not isinstance(packager, GitArchivePackager) or packager.path is not None:
        return packager
    bare, version = getattr(bundle, "bare_repo_path", None), getattr(bundle, "version", None)
    if bare is None or not version or not Path(bare).is_dir():
        return packager
    subdir = getattr(bundle, "subdir", None)
    subpath = "/".join(part for part in (subdir or "", packager.subpath) if part)
    return dataclasses.replace(packager, path=str(bare), ref=version, subpath=subpath)
