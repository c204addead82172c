"""Runs git on a repository without changing anything in it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from nemo_airflow.exceptions import NotARepositoryError, PackagingError

_SETTINGS = (
    "-c",
    "core.quotePath=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.untrackedCache=false",
    "-c",
    "tar.umask=0022",
)


@dataclasses.dataclass(frozen=True)
class Repository:
    """A git repository, with a working tree or bare.

    Attributes:
        folder: The top of the working tree; the repository itself when it is bare.
        git_folder: Where this working tree's index is.
        objects: Where its objects are.
        bare: Whether there is no working tree.
        env: Variables of every git process.
    """

    folder: Path
    git_folder: Path
    objects: Path
    bare: bool
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> Repository:
        """Returns the repository that a path is in.

        Raises:
            NotARepositoryError: It is in none.
            PackagingError: Git is not installed, or refuses the repository.
        """
        if not path.is_dir():
            raise NotARepositoryError(
                f"{path} is not a folder: give GitArchivePackager(path=...) a folder in a git repository"
            )
        try:
            done = _git(path, ["rev-parse", "--is-bare-repository", "--absolute-git-dir", "--git-path", "objects"])
        except PackagingError as error:
            if "dubious ownership" in str(error):
                raise PackagingError(
                    f"git refuses {path}, which belongs to another user; "
                    f"if you trust it: git config --global --add safe.directory {path}"
                ) from error
            if "not a git repository" in str(error):
                raise NotARepositoryError(
                    f"{path} is not in a git repository: run 'git init' and commit there, "
                    "or give GitArchivePackager(path=...) one that is"
                ) from error
            raise
        bare, git_folder, objects = done.decode().split("\n")[:3]
        top = (
            Path(git_folder)
            if bare == "true"
            else Path(_git(path, ["rev-parse", "--show-toplevel"]).decode().rstrip("\n"))
        )
        return cls(top, Path(git_folder), (path / objects).resolve(), bare == "true")

    def git(self, *arguments: str, input: bytes | None = None) -> bytes:
        """Runs a git command and returns what it printed.

        Raises:
            PackagingError: It failed; the message has git's own words.
        """
        return _git(self.folder, arguments, env=self.env, input=input)

    def text(self, *arguments: str) -> str:
        """Runs a git command and returns its output as one line of text."""
        return self.git(*arguments).decode("utf-8", "surrogateescape").strip()

    @contextlib.contextmanager
    def stream(self, *arguments: str) -> Iterator[IO[bytes]]:
        """Runs a git command and gives its output as it comes."""
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                _command(self.folder, arguments), stdout=subprocess.PIPE, stderr=errors, env=_environment(self.env)
            )
            assert process.stdout is not None  # noqa: S101 - for the type checker: it was asked for
            with process.stdout:
                yield process.stdout
            if process.wait():
                errors.seek(0)
                raise _failure(arguments, errors.read())

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Repository]:
        """Gives the repository with an index and new objects in a temporary folder: nothing is written into it."""
        with tempfile.TemporaryDirectory(prefix="nemo-airflow-git-") as folder:
            objects = Path(folder, "objects")
            objects.mkdir()
            index = Path(folder, "index")
            if (self.git_folder / "index").exists():
                shutil.copy2(
                    self.git_folder / "index", index
                )  # with what it knows of the files, which then need not be read
            known = (
                self.env.get("GIT_OBJECT_DIRECTORY", ""),
                str(self.objects),
                self.env.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", ""),
            )
            alternates = os.pathsep.join(filter(None, known))
            fixed = {name: value for who in ("AUTHOR", "COMMITTER") for name, value in _identity(who).items()}
            env = {
                **self.env,
                **fixed,
                "GIT_INDEX_FILE": str(index),
                "GIT_OBJECT_DIRECTORY": str(objects),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": alternates,
            }
            yield dataclasses.replace(self, env=env)

    def origin(self) -> str:
        """Returns the address of the remote ``origin`` without credentials, or an empty string."""
        try:
            address = self.text("config", "--get", "remote.origin.url")
        except PackagingError:  # git's answer when there is none
            return ""
        parts = urlsplit(address)
        if parts.scheme and "@" in parts.netloc:
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return address


def _identity(who: str) -> dict[str, str]:
    # The same commit for the same tree, whoever makes it and when.
    return {
        f"GIT_{who}_NAME": "nemo-airflow",
        f"GIT_{who}_EMAIL": "nemo-airflow@localhost",
        f"GIT_{who}_DATE": "@0 +0000",
    }


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    # Without those of a git hook or a test that we may run in; and no lock is taken for an optional refresh.
    clean = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"GIT_(?!SSH|CONFIG_GLOBAL|CONFIG_SYSTEM)", name)
    }
    return {**clean, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", **env}


def _command(folder: Path, arguments: tuple[str, ...] | list[str]) -> list[str]:
    return ["git", "-C", str(folder), *_SETTINGS, *arguments]


def _git(
    folder: Path,
    arguments: tuple[str, ...] | list[str],
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,
) -> bytes:
    try:
        done = subprocess.run(
            _command(folder, arguments), capture_output=True, env=_environment(env or {}), input=input, check=False
        )
    except FileNotFoundError as error:
        raise PackagingError("git is not installed, or not on the PATH: GitArchivePackager needs it") from error
    if done.returncode:
        raise _failure(arguments, done.stderr)
    return done.stdout


def _failure(arguments: tuple[str, ...] | list[str], stderr: bytes) -> PackagingError:
    words = stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    return PackagingError(f"git {arguments[0]}: {words[0] if words else 'failed'}")
