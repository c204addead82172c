"""Ships the package of an earlier run again: from a store, else built anew from its commit and its patch."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow.comparison.code_changes import CodeState, has_commit, tree_of
from nemo_airflow.exceptions import NotARepositoryError, PackagingError, StoreError
from nemo_airflow.job import PATCH, Archive, Package
from nemo_airflow.packaging.archive import FORMATS, GZIP, ZSTD
from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.content import package_digest
from nemo_airflow.packaging.git.packager import GitArchivePackager
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.runner.unpack import unpack, zstd_stream
from nemo_airflow.store import PackageStore
from nemo_airflow.store.address import configured_store
from nemo_airflow.tracking.mlflow.recorded import RecordedRun


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordedPackager(Packager):
    """Ships a recorded package, byte for byte: whatever is built anew has to have its digest.

    Attributes:
        run_id: The run that has it.
        recorded: The package; its format is not known where that of an earlier release was not recorded.
        repositories: Folders in repositories in which its commit is looked for, the first ones first.
        reads_zstd: Whether the job can unpack ``tar.zst``; if not, a package that is kept so is sent as ``tar.gz``.
    """

    kind: ClassVar[str] = "recorded"

    run_id: str
    recorded: Package
    repositories: tuple[str, ...] = ()
    reads_zstd: bool = False

    def to_json(self) -> dict[str, Any]:
        """See :meth:`Packager.to_json`; without the patch."""
        return {"kind": self.kind, "run_id": self.run_id, "digest": self.recorded.digest}

    def package(self, store: PackageStore, *, root: Path | None = None) -> Package:
        """See :meth:`Packager.package`."""
        package = self._find(store) or self._build(store, root)
        if package.format == ZSTD and not self.reads_zstd:
            package = _as_gzip(package, store)
        if not package.stored_patch or store.has(package.stored_patch, PATCH):
            return package
        patch = package.patch.encode("utf-8", "surrogateescape")
        if hashlib.sha256(patch).hexdigest() != package.patch_digest:  # it held a secret, and is where it was made
            return dataclasses.replace(package, patch="", patch_digest="")
        with store.write(package.stored_patch, PATCH) as file:
            file.write(patch)
        return package

    def unpack(self, store: PackageStore, into: Path) -> None:
        """Unpacks the package, which is in the store, into a folder."""
        package = self.package(store)
        for number, archive in enumerate(package.archives):
            unpack(str(store.path(archive.digest, archive.format)), str(into), changes=number > 0)

    def _find(self, store: PackageStore) -> Package | None:
        """Returns the package, if its archives are on this machine or in the shared store, from which they come."""
        shared = configured_store()
        for package in self._forms():
            archives = [archive for archive in package.archives if not store.has(archive.digest, archive.format)]
            if not archives:
                return _measured(package, store)
            if shared is None:
                continue
            with contextlib.suppress(StoreError):  # it does not have all of them
                for archive in archives:
                    shared.get_package(archive, store)
                return _measured(package, store)
        return None

    def _forms(self) -> Iterator[Package]:
        """Yields the forms in which the package may be kept: as it was sent first."""
        yield self.recorded
        if not self.recorded.base:
            yield from (
                dataclasses.replace(self.recorded, format=format)
                for format in FORMATS
                if format != self.recorded.format
            )

    def _build(self, store: PackageStore, root: Path | None) -> Package:
        recorded, shared = self.recorded, configured_store()
        what = f"package {recorded.digest[:12]} of run {self.run_id}"
        places = f"{store.folder} on this machine" + (f" nor in the store {shared.place.where}" if shared else "")
        try:
            self._check_whether_git_has_it()
            folder = self._repository(root)
            with tempfile.TemporaryDirectory(prefix="nemo-airflow-git-") as scratch:
                built = self._build_in(folder, Path(scratch), store)
        except PackagingError as error:
            raise PackagingError(f"{what} is not in {places}, and cannot be built again: {error}") from error
        form = {name: getattr(built, name) for name in ("format", "size", "base", "base_size")}
        return dataclasses.replace(recorded, **form)

    def _check_whether_git_has_it(self) -> None:
        recorded = self.recorded
        keep = "keep packages with NEMO_AIRFLOW_STORE, or run the code as it is now with 'nemo-airflow run'"
        if not recorded.commit:
            raise PackagingError(f"it was made from no commit: {keep}")
        if recorded.parts:
            raise PackagingError(f"it has several parts: {keep}")
        if recorded.included:
            raise PackagingError(f"{len(recorded.included)} of its files are not tracked by git: {keep}")
        if recorded.dirty and not recorded.patch:
            raise PackagingError(f"its uncommitted changes are not recorded, as they held a secret: {keep}")

    def _repository(self, root: Path | None) -> Path:
        """Returns the folder of the first repository that has the commit."""
        looked = []
        for folder in (*map(Path, self.repositories), *([root] if root else [])):
            try:
                repository = Repository.at(folder)
            except NotARepositoryError as error:
                looked.append(str(error))
                continue
            if has_commit(repository, self.recorded.commit):
                return repository.folder
            looked.append(f"{repository} does not have it")
        where = f", from {self.recorded.origin}" if self.recorded.origin else ""
        raise PackagingError(
            f"commit {self.recorded.commit[:12]} is in no repository here ({'; '.join(looked) or 'none was named'}): "
            f"fetch it{where}, or name the repository that has it"
        )

    def _build_in(self, folder: Path, scratch: Path, store: PackageStore) -> Package:
        """Packs the commit with its patch, in a clone that shares the repository's objects and writes nothing there."""
        recorded, clone = self.recorded, scratch / "code.git"
        Repository.at(folder).git("clone", "--quiet", "--shared", "--bare", str(folder), str(clone))
        copy = Repository.at(clone).with_env(
            GIT_INDEX_FILE=str(scratch / "index"),
            **{f"GIT_{who}_{what}": "nemo-airflow" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        )
        tree = tree_of(copy, CodeState(recorded.commit, recorded.patch))
        commit = copy.text("commit-tree", "-m", "as it was packaged", "-p", recorded.commit, tree)
        subpath = _subpath_of(copy, tree, recorded.digest)
        built = GitArchivePackager(path=str(clone), ref=commit, subpath=subpath, exclude=recorded.excluded)
        package = built.package(store)
        if package.digest != recorded.digest:
            raise PackagingError(
                f"commit {recorded.commit[:12]}{' with its patch' if recorded.patch else ''} gives package "
                f"{package.digest[:12]} now: its submodules, files of Git LFS or attributes are not those that they "
                "were; keep packages with NEMO_AIRFLOW_STORE"
            )
        return package


def _subpath_of(repository: Repository, tree: str, digest: str) -> str:
    """Returns the folder of a tree whose content has the digest of a package; empty for the whole, or where none has.

    Which folder a package shipped is not recorded, but its digest tells.
    """
    for entry in repository.git("ls-tree", "-r", "-d", "-z", "--full-tree", tree).split(b"\0"):
        about, _, path = entry.partition(b"\t")
        if entry and package_digest(about.split()[2].decode()) == digest:
            return path.decode("utf-8", "surrogateescape")
    return ""


def _as_gzip(package: Package, store: PackageStore) -> Package:
    """Returns the package in a form that every job reads, which is in the store then too."""
    plain = dataclasses.replace(package, format=GZIP)
    for packed, archive in zip(package.archives, plain.archives, strict=True):
        if not store.has(archive.digest, GZIP):
            with (
                store.path(packed.digest, ZSTD).open("rb") as source,
                zstd_stream(source) as tar,
                store.write(archive.digest, GZIP) as file,
                gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as target,
            ):
                shutil.copyfileobj(tar, target, 1 << 20)
    return _measured(plain, store)


def _measured(package: Package, store: PackageStore) -> Package:
    """Returns the package with the sizes of its archives, which are in the store."""

    def size_of(archive: Archive) -> int:
        return store.path(archive.digest, archive.format).stat().st_size

    sizes = [size_of(archive) for archive in package.archives]
    return dataclasses.replace(package, size=sum(sizes), base_size=sizes[0] if package.base else 0)


def recorded_packager(run: RecordedRun, repositories: tuple[str, ...], *, reads_zstd: bool) -> RecordedPackager | None:
    """Returns what ships the package of a run again; None for a run that shipped none."""
    if not run.package_digest:
        return None
    shown: Mapping[str, Any] = run.asked.get("package") or {}
    known = {field.name for field in dataclasses.fields(Package)}
    recorded = Package.from_json(
        {
            **{name: value for name, value in shown.items() if name in known},
            "digest": run.package_digest,
            "commit": run.commit,
            "dirty": run.dirty,
            "patch": run.patch,
            "parts": run.parts,
            "included": run.included,
            "excluded": run.excluded,
            "keeps_patch_apart": False,
            "is_fetched": False,
        }
    )
    return RecordedPackager(run_id=run.run_id, recorded=recorded, repositories=repositories, reads_zstd=reads_zstd)
