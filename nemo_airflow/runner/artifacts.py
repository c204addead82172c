"""Makes files and folders artifacts, values that a job returns and another one gets. Standard library only."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from typing import Union

from nemo_airflow.language.artifact import (
    ADDRESS,
    DIGITS,
    FILE,
    FOLDER,
    Artifact,
    is_elsewhere,
)

_OUTPUTS = "NEMO_AIRFLOW_OUTPUT_DIR"


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
    if scheme := ADDRESS.match(text):
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
    for relative in (made.file, os.path.join(made.digest[:DIGITS], made.file)):
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
            shutil.copytree(source, new, symlinks=True, copy_function=link_or_copy)
            if os.path.lexists(target):
                return False
            os.rename(new, target)
        else:
            link_or_copy(source, new)
            link_or_copy(new, target, replace=False)
    except OSError:
        if os.path.lexists(target):
            return False
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def link_or_copy(source: str, target: str, replace: bool = True) -> None:
    """Gives a file another name, or copies it where the disk has no links."""
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
