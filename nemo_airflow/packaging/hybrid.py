"""Combines the files of several packagers, each in its own folder of the package."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.content import File, format_path
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import Content, Part
from nemo_airflow.packaging.sections import section


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridPackager(ContentPackager):
    """Combines several packagers in one package: other repositories, data beside code, a wheel.

    Attributes:
        sub_packagers: Packagers by the folder for their files in the package; ``""`` is its root. Where
            several share a folder, a list of them. A file that two of them ship is refused.
    """

    kind: ClassVar[str] = "hybrid"

    sub_packagers: Mapping[str, ContentPackager | Sequence[ContentPackager]]

    def __post_init__(self) -> None:
        if not self.sub_packagers:
            raise PackagingError("HybridPackager has no sub_packagers: give at least one")
        for prefix, packager in self._parts():
            if not isinstance(packager, ContentPackager):
                raise PackagingError(f"sub_packagers[{prefix!r}] is {packager!r}, which is not a ContentPackager")
            if prefix.startswith("/") or ".." in prefix.split("/"):
                raise PackagingError(
                    f"sub_packagers[{prefix!r}]: give a folder of the package as a relative path without '..'"
                )

    @contextlib.contextmanager
    def content(self, root: Path | None, notes: Notes) -> Iterator[Content]:
        """See :meth:`ContentPackager.content`."""
        with contextlib.ExitStack() as stack:
            merged: dict[str, tuple[File, str]] = {}
            found: list[Content] = []
            parts: list[Part] = []
            included: dict[str, str] = {}
            excluded: list[str] = []
            for number, (prefix, packager) in enumerate(self._parts()):
                own = Notes(notes.folder.parent, f"{notes.key} {number}")
                part = stack.enter_context(packager.content(root, own))
                folder = "/".join(name for name in prefix.split("/") if name not in ("", "."))
                name = f"{packager.kind} at {prefix!r}"
                for file in part.files():
                    path = f"{folder}/{file.path}" if folder else file.path
                    if path in merged:
                        raise PackagingError(
                            f"{format_path(path)} is shipped by two packagers, {merged[path][1]} and {name}: "
                            "leave it out of one by exclude=[...], or give one another folder"
                        )
                    merged[path] = (file._replace(path=path), name)
                included |= {_below(folder, path): blob for path, blob in part.included.items()}
                excluded += [f"{folder}: {pattern}" if folder else pattern for pattern in part.excluded]
                own.save()
                found.append(part)
                inner = part.parts or [Part("", packager.kind, part.commit, part.origin, part.subpath, part.patch)]
                parts += [each._replace(prefix=_below(folder, each.prefix)) for each in inner]
            _refuse_nesting(merged)
            first = next((part for part in found if part.commit), found[0])
            yield Content(
                lambda: [file for file, _ in merged.values()],
                commit=first.commit,
                origin=first.origin,
                branch=first.branch,
                patch=functools.partial(_patch, parts),
                dirty=any(part.dirty for part in found),
                parts=parts,
                included=included,
                excluded=excluded,
            )

    def to_json(self) -> dict[str, Any]:
        """See :meth:`Packager.to_json`."""
        data = super().to_json()
        data["sub_packagers"] = {
            prefix: [each.to_json() for each in packagers] for prefix, packagers in self.by_prefix().items()
        }
        return data

    def by_prefix(self) -> dict[str, list[ContentPackager]]:
        """Returns lists of packagers by their folder."""
        return {
            prefix: [packagers] if isinstance(packagers, ContentPackager | str) else list(packagers)
            for prefix, packagers in self.sub_packagers.items()
        }

    def _parts(self) -> Iterator[tuple[str, ContentPackager]]:
        for prefix, packagers in self.by_prefix().items():
            for packager in packagers:
                yield prefix, packager


def _refuse_nesting(merged: Mapping[str, tuple[File, str]]) -> None:
    """Refuses a file of one packager where another has a folder."""
    for path, (_, name) in merged.items():
        folder = path.rpartition("/")[0]
        while folder:
            if folder in merged:
                raise PackagingError(
                    f"{format_path(folder)} is a file of {merged[folder][1]} and a folder of {name}: "
                    "leave it out of one, or give one another folder"
                )
            folder = folder.rpartition("/")[0]


def _patch(parts: Sequence[Part], folder: str | None) -> bytes:
    sections = []
    for number, part in enumerate(parts):
        if patch := part.patch(_below(folder or "", part.prefix)):
            sections.append(section(number, part.to_json(), patch))
    return b"".join(sections)


def _below(folder: str, path: str) -> str:
    return "/".join(filter(None, (folder, path)))
