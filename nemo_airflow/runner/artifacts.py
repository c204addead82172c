"""Files and folders as values: what a job returns as an artifact, a later job gets as a path. Standard library only."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Dict, Union

if TYPE_CHECKING:
    from pathlib import Path

TAG = "_artifact_"
"""The one key of an artifact's JSON form, in a returned value and in a plan."""

FILE, FOLDER = "file", "folder"

INPUTS = "NEMO_AIRFLOW_INPUTS"
"""Environment variable with the folder of the artifacts that were given to the job."""

_OUTPUTS = "NEMO_AIRFLOW_OUTPUT_DIR"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ELSEWHERE = ("s3", "gs", "gcs", "abfs", "abfss")
_DIGITS = 16
"""Digits of the digest in the path of an artifact that was given to a job."""

_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclasses.dataclass(frozen=True)
class Artifact(os.PathLike):  # type: ignore[type-arg]  # os.PathLike[str] is no class in Python 3.9
    """A file or folder that a job made, or that is elsewhere already.

    In a job, ``open(artifact)`` and :meth:`path` use the copy that is there.

    Attributes:
        digest: SHA-256 of the file, or of the folder's list of files, in hex; empty where it was never read.
        size: Bytes of its files.
        kind: ``file`` or ``folder``.
        file: Its file name.
        name: Where it was in the returned value, such as ``model`` or ``models[0]``.
        address: The store that has it, or where it is: ``s3://bucket/path``.
        output: Its path among the outputs of the job that made it.
        job: Key of that job.
        run_id: That job's run in the tracker, or empty.
    """

    digest: str = ""
    size: int = 0
    kind: str = FILE
    file: str = ""
    name: str = ""
    address: str = ""
    output: str = ""
    job: str = ""
    run_id: str = ""
    local: str = dataclasses.field(default="", compare=False, repr=False)

    def path(self) -> Path:
        """Returns the path of the file or folder on this machine; outside a job it is fetched if need be.

        Raises:
            FileNotFoundError: It was not given to this job.
        """
        import pathlib

        if self.local:
            return pathlib.Path(self.local)
        inputs = os.environ.get(INPUTS)
        if not inputs:
            from nemo_airflow.artifacts import fetch_artifact

            return fetch_artifact(self)
        path = place_in(inputs, self)
        if not os.path.lexists(path):
            raise FileNotFoundError(
                f"{self} is not here: a job is given the artifacts that its config has, so make it an argument there"
            )
        return pathlib.Path(path)

    def __fspath__(self) -> str:
        return str(self.path())

    def __str__(self) -> str:
        where = f" of run {self.run_id}" if self.run_id else f" of job {self.job}" if self.job else ""
        what = f"{self.digest[:12]}, {size_text(self.size)}" if self.digest else self.address
        return f"artifact {self.name or self.file!r} ({self.kind}, {what}){where}"

    def to_json(self) -> Dict[str, Any]:
        """Returns the artifact as plain JSON types; empty fields are left out."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {TAG: {name: value for name, value in fields.items() if value and name != "local"}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Artifact:
        """The inverse of ``to_json``, also of what is below its one key.

        Raises:
            ValueError: It is not an artifact's form.
        """
        fields = data.get(TAG, data)
        texts = [field.name for field in dataclasses.fields(cls) if field.name not in ("size", "local")]
        if not isinstance(fields, Mapping) or not set(fields) <= {*texts, "size"}:
            raise ValueError(f"{data!r} is not an artifact")
        if not all(isinstance(fields.get(name, ""), str) for name in texts) or type(fields.get("size", 0)) is not int:
            raise ValueError(f"{data!r} is not an artifact")
        made = cls(**fields)
        digest_fits = re.fullmatch("[0-9a-f]{64}", made.digest) or (not made.digest and is_elsewhere(made.address))
        if not digest_fits or made.kind not in (FILE, FOLDER) or not _is_name(made.file):
            raise ValueError(f"{data!r} is not an artifact")
        return made

    @classmethod
    def from_run(cls, run_id: str, name: str, *, tracking_uri: str = "", conn_id: str = "") -> Artifact:
        """Returns an artifact of an earlier run, or a file or folder among its outputs. Not in a job. Blocks.

        Args:
            run_id: The run's id in MLflow.
            name: The artifact's name in the returned value, or a path in the run's artifacts.
            tracking_uri: MLflow's address; found as for a tracker when empty.
            conn_id: An Airflow connection with the address and the login.

        Raises:
            NemoAirflowError: There is no such run or artifact, or MLflow cannot be reached.
        """
        from nemo_airflow.artifacts import artifact_of_run

        return artifact_of_run(run_id, name, tracking_uri=tracking_uri, conn_id=conn_id)

    @classmethod
    def from_model(cls, uri: str, *, tracking_uri: str = "", conn_id: str = "") -> Artifact:
        """Returns the file or folder of a registered model. Not in a job. Blocks.

        Args:
            uri: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.
            tracking_uri: MLflow's address; found as for a tracker when empty.
            conn_id: An Airflow connection with the address and the login.

        Raises:
            NemoAirflowError: There is no such model, or MLflow cannot be reached.
        """
        from nemo_airflow.artifacts import artifact_of_model

        return artifact_of_model(uri, tracking_uri=tracking_uri, conn_id=conn_id)


def artifact(path: Union[str, os.PathLike[str]]) -> Artifact:
    """Makes a file or folder a value that can be returned from the job and given to another.

    It is among the job's outputs then: linked or copied there, unless it is below :func:`output_dir`. It is read now,
    so nothing may change it later. Links inside a folder stay links; empty folders are left out.

    Args:
        path: The file or folder; or the address of what is elsewhere already: ``s3://bucket/path``, also ``gs://`` and
            ``abfs://``, with a slash at the end for a folder.

    Raises:
        FileNotFoundError: The path does not exist.
        ValueError: The folder is empty, or has a link that leads to nothing or outside, or something is neither file
            nor folder; or it is the whole output directory; or the address is of another kind.
    """
    text = os.fspath(path)
    if scheme := _ADDRESS.match(text):
        if not is_elsewhere(text) or "?" in text:
            raise ValueError(f"artifact: {scheme[0]}... is not an address of an object: give s3://, gs:// or abfs://")
        return Artifact(
            kind=FOLDER if text.endswith("/") else FILE, file=text.rstrip("/").rpartition("/")[2], address=text
        )
    made = read_artifact(text)
    if "NEMO_AIRFLOW_EVENTS" not in os.environ:
        return made
    output = _keep(text, made)
    job, run_id = (os.environ.get(name, "") for name in ("NEMO_AIRFLOW_KEY", "NEMO_AIRFLOW_RUN"))
    return dataclasses.replace(made, output=output, job=job, run_id=run_id)


def read_artifact(path: str) -> Artifact:
    """Returns the artifact of a file or folder of this machine, without a place; see :func:`artifact`."""
    from nemo_airflow.runner import digests

    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise FileNotFoundError(f"artifact: {os.path.abspath(path)} does not exist")
    file, local = os.path.basename(os.path.abspath(path)), os.path.abspath(path)
    if os.path.isdir(real):
        entries = digests.list_files(real)
        if not entries:
            raise ValueError(f"artifact: the folder {local} is empty")
        digest, size = digests.folder_digest(entries), sum(entry.size for entry in entries)
        return Artifact(digest, size, FOLDER, file, local=local)
    if not os.path.isfile(real):
        raise ValueError(f"artifact: {local} is neither a file nor a folder")
    return Artifact(digests.sha256_of(real), os.path.getsize(real), FILE, file, local=local)


def is_elsewhere(address: str) -> bool:
    """Returns whether an address is that of an object in a bucket."""
    scheme = _ADDRESS.match(address)
    return bool(scheme and scheme[1] in _ELSEWHERE)


def place_in(inputs: str, given: Artifact) -> str:
    """Returns the path of an artifact in the folder of those that were given to a job."""
    return os.path.join(inputs, given.digest[:_DIGITS], given.file)


def size_text(size: float) -> str:
    """Returns a number of bytes for people."""
    for unit, name in _SIZES:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def _is_name(file: str) -> bool:
    return file not in ("", ".", "..") and "/" not in file and "\0" not in file


def _keep(path: str, made: Artifact) -> str:
    """Brings a file or folder among the job's outputs, if it is not there; returns its path in them."""
    outputs = os.path.realpath(os.environ[_OUTPUTS])
    os.makedirs(outputs, exist_ok=True)
    real = os.path.realpath(path)
    if real == outputs or outputs.startswith(real + os.sep):
        raise ValueError("artifact: give a file or folder below output_dir(), not the whole output directory")
    if real.startswith(outputs + os.sep):
        return os.path.relpath(real, outputs)
    # Another artifact, or another process of the job, may have the name.
    for relative in (made.file, os.path.join(made.digest[:_DIGITS], made.file)):
        target = os.path.join(outputs, relative)
        if _bring(real, target) or _has(target, made):
            return relative
    raise ValueError(f"artifact: {target} is there already, with another content: remove it")


def _bring(source: str, target: str) -> bool:
    """Links or copies a file or folder to a path, where it appears whole; returns False if that is taken."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    # Beside the outputs, so that nothing that is left of a process that was killed is among them.
    scratch = tempfile.mkdtemp(dir=os.path.dirname(os.environ[_OUTPUTS]), prefix=".artifact-")
    new = os.path.join(scratch, "new")
    try:
        if os.path.isdir(source):
            shutil.copytree(source, new, symlinks=True, copy_function=_link_or_copy)
            if os.path.lexists(target):
                return False
            os.rename(new, target)
        else:
            _link_or_copy(source, new)
            _link_or_copy(new, target, replace=False)
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _link_or_copy(source: str, target: str, replace: bool = True) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # another disk, or one without links
        if not replace and os.path.lexists(target):
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def _has(target: str, made: Artifact) -> bool:
    from nemo_airflow.runner import digests

    try:
        return digests.digest_of(target) == made.digest
    except (OSError, ValueError):
        return False
