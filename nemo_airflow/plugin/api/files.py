"""The files of a job's run in MLflow: folders in pages, previews of what browsers can show, downloads as a stream.

What a job has written is not trusted: it never becomes a page of Airflow's. Its images and pages are sent with a
policy that lets no script run and nothing be loaded, also where somebody opens their address alone.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections.abc import Generator, Iterator
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import StreamingResponse

from nemo_airflow.language.artifact import Artifact
from nemo_airflow.plugin.api.answers import Answer
from nemo_airflow.plugin.api.earlier import ask, need_run
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep
from nemo_airflow.plugin.api.previews import Kind, Table, is_text, kind_of, read_table
from nemo_airflow.tracking.base import ARTIFACT
from nemo_airflow.tracking.mlflow.files import RunFiles
from nemo_airflow.tracking.mlflow.store import StoredFile

router = APIRouter(tags=["files"])

_SHOWN = 512 << 10
"""Bytes of a file that a preview has at most."""

_INLINE = 32 << 20
"""Bytes of an image or page that a browser is given to show."""

_FETCHED = 256 << 20
"""Bytes of a file that is read at all for a preview: what keeps it may only be able to send it as a whole."""

_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp",
    "svg": "image/svg+xml", "bmp": "image/bmp", "avif": "image/avif", "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
}  # fmt: skip
"""Types of what is shown in a frame, by the ending of its name. All else is a download."""

_POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; font-src data:; media-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)

_REPORT = re.compile(r"report\.\w+", re.IGNORECASE)


class FileRow(Answer):
    """A file or folder of a run.

    Attributes:
        path: Its path in the run.
        name: The last part of it.
        is_folder: Whether it is a folder.
        size: Its bytes; 0 for a folder.
        kind: How it can be shown.
    """

    path: str
    name: str
    is_folder: bool
    size: int
    kind: Kind


class MadeArtifact(Answer):
    """An artifact that a job has returned.

    Attributes:
        name: Where it is in the returned value.
        path: Its path in the run; empty where it is not among the run's files.
        kind: ``file`` or ``folder``.
        digest: The SHA-256 of its content, or empty.
        size: Its bytes.
        address: The store that has it, or where it is.
    """

    name: str
    path: str
    kind: str
    digest: str
    size: int
    address: str


class FileList(Answer):
    """A page of a folder.

    Attributes:
        folder: The folder; empty for the top.
        files: What is in it: a report first, then folders, then files.
        total: How many there are in the folder.
        artifacts: What the job has returned; only with the top.
    """

    folder: str
    files: list[FileRow]
    total: int
    artifacts: list[MadeArtifact]


class Preview(Answer):
    """A file, as far as a page can show it.

    Attributes:
        path: Its path in the run.
        kind: How it is shown.
        size: Its bytes.
        shown: Bytes of it that are in this answer.
        is_cut: Whether that is only the beginning.
        text: Its text; empty for an image, a page and what is unknown.
        table: Its rows, for a table.
        why_not: Why it is not shown, in one line; or empty.
    """

    path: str
    kind: Kind
    size: int
    shown: int = 0
    is_cut: bool = False
    text: str = ""
    table: Table | None = None
    why_not: str = ""


@router.get("/job/files")
def list_files(
    found: FoundJobDep,
    folder: str = "",
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> FileList:
    """Returns a page of a folder of the run's files."""
    files = _files(found)
    listed = ask(lambda: files.in_folder(folder))
    if not folder:
        listed.sort(key=lambda file: not _REPORT.fullmatch(file.name))
    rows = [_row(file) for file in listed[offset : offset + limit]]
    made = list(_artifacts(found)) if not folder else []
    return FileList(folder=folder, files=rows, total=len(listed), artifacts=made)


@router.get("/job/file")
def preview_file(found: FoundJobDep, path: str) -> Preview:
    """Returns the beginning of a file in the form in which a page shows it."""
    files = _files(found)
    file = _need(files, path)
    kind = kind_of(file.name)
    if kind in ("image", "html"):
        too_large = f"it has more than {_INLINE >> 20} MB: download it" if file.size > _INLINE else ""
        return Preview(path=path, kind=kind, size=file.size, is_cut=False, why_not=too_large)
    if kind == "unknown":
        return Preview(path=path, kind=kind, size=file.size, why_not="pages cannot show this kind of file: download it")
    if file.size > _FETCHED:
        large = f"it has more than {_FETCHED >> 20} MB, which is read only to download it"
        return Preview(path=path, kind="unknown", size=file.size, why_not=large)
    data = ask(lambda: files.beginning(path, _SHOWN))
    if not is_text(data):
        return Preview(path=path, kind="unknown", size=file.size, why_not="it is not a text: download it")
    text = data.decode("utf-8", "replace")
    is_cut = file.size > len(data)
    table = read_table(file.name, text, is_cut) if kind == "table" else None
    return Preview(
        path=path, kind=kind, size=file.size, shown=len(data), is_cut=is_cut, text="" if table else text, table=table
    )


@router.get("/job/file/content", response_class=StreamingResponse)
def send_file(found: FoundJobDep, path: str, how: Literal["inline", "download"] = "download") -> StreamingResponse:
    """Sends a file: to be shown in a frame that lets nothing run, or to be saved."""
    files = _files(found)
    file = _need(files, path)
    ending = file.name.rpartition(".")[2].lower()
    is_inline = how == "inline" and ending in _TYPES
    if is_inline and file.size > _INLINE:
        raise HTTPException(422, f"{path} has more than {_INLINE >> 20} MB: download it")
    pieces = files.pieces(path)
    first = ask(lambda: next(pieces, b""))  # before the answer begins: what cannot be read is an error, not half a file
    headers = {
        "Content-Security-Policy": _POLICY,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"{'inline' if is_inline else 'attachment'}; filename*=UTF-8''{quote(file.name)}",
    }
    media_type = _TYPES[ending] if is_inline else "application/octet-stream"
    return StreamingResponse(_all(first, pieces), media_type=media_type, headers=headers)


def _all(first: bytes, others: Generator[bytes]) -> Generator[bytes]:
    """Yields all pieces, and closes what they are read from also where the browser goes away."""
    with contextlib.closing(others):
        yield from itertools.chain((first,), others)


def _files(found: FoundJob) -> RunFiles:
    run, source = need_run(found)
    return ask(lambda: RunFiles(run.run_id, source.tracking_uri, source.conn_id))


def _need(files: RunFiles, path: str) -> StoredFile:
    file = ask(lambda: files.find(path))
    if file is None or file.is_folder:
        raise HTTPException(404, f"the run has no file {path!r}")
    return file


def _row(file: StoredFile) -> FileRow:
    return FileRow(
        path=file.path, name=file.name, is_folder=file.is_folder, size=file.size,
        kind="unknown" if file.is_folder else kind_of(file.name),
    )  # fmt: skip


def _artifacts(found: FoundJob) -> Iterator[MadeArtifact]:
    tags = found.run.tags if found.run else {}
    for tag, text in sorted(tags.items()):
        if not tag.startswith(ARTIFACT):
            continue
        try:
            made = Artifact.from_json(json.loads(text))
        except ValueError:  # so long that the tag was cut
            continue
        yield MadeArtifact(
            name=made.name or tag.removeprefix(ARTIFACT),
            path=made.output,
            kind=made.kind,
            digest=made.digest,
            size=made.size,
            address=made.address,
        )
