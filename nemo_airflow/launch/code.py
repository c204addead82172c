"""Chooses how the code in a folder is shipped, where nobody says it."""

from __future__ import annotations

from pathlib import Path

from nemo_airflow.exceptions import NotARepositoryError, PackagingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.git.packager import GitArchivePackager
from nemo_airflow.packaging.git.repository import Repository


def packager_of(folder: Path, executor: Executor) -> Packager | None:
    """Returns what ships the git repository of a folder with all changes; None where a job sees the folder itself.

    Raises:
        PackagingError: It is in no repository, and the job does not see this machine's files.
    """
    try:
        Repository.at(folder)
    except NotARepositoryError as error:
        if executor.shares_filesystem:
            return None
        raise PackagingError(
            f"{folder} is in no git repository, so that its code cannot be shipped to the job: run 'git init' "
            "there, or give --packager 'kind: pattern' (in Python packager=PatternPackager(...)), which ships all "
            "files below it, or none where the image has the code"
        ) from error
    return GitArchivePackager(uncommitted="include", untracked="include")
