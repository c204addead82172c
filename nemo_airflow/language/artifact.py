"""A file or folder as a value: a job returns it, and another one gets it as a path. Standard library only."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Dict

if TYPE_CHECKING:
    from pathlib import Path

TAG = "_artifact_"
"""The one key of an artifact's JSON form, in a returned value and in a plan."""

FILE, FOLDER = "file", "folder"

INPUTS = "NEMO_AIRFLOW_INPUTS"
"""Environment variable with the folder of the artifacts that were given to the job."""

ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_ELSEWHERE = ("s3", "gs", "gcs", "abfs", "abfss")
DIGITS = 16
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


def is_elsewhere(address: str) -> bool:
    """Returns whether an address is that of an object in a bucket."""
    scheme = ADDRESS.match(address)
    return bool(scheme and scheme[1] in _ELSEWHERE)


def place_in(inputs: str, given: Artifact) -> str:
    """Returns the path of an artifact in the folder of those that were given to a job."""
    return os.path.join(inputs, given.digest[:DIGITS], given.file)


def size_text(size: float) -> str:
    """Returns a number of bytes for people."""
    for unit, name in _SIZES:
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size:.0f} bytes"


def _is_name(file: str) -> bool:
    return file not in ("", ".", "..") and "/" not in file and "\0" not in file
