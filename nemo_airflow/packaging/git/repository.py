"""Runs git on a repository without changing anything in it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from nemo_airflow.exceptions import NotARepositoryError, PackagingError
from nemo_airflow.packaging.content import format_path, start_hash
from nemo_airflow.packaging.notes import Notes

_SETTINGS = (
    "-c",
    "core.quotePath=false",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.untrackedCache=false",
    "-c",
    "core.looseCompression=1",
)

_BUFFER = 1 << 18

_BRANCHES, _REMOTE_BRANCHES = "refs/heads/", "refs/remotes/origin/"

_PATHS = ("folder", "git_folder", "objects", "common")


@dataclasses.dataclass(frozen=True)
class Repository:
    """A git repository, with a working tree or bare.

    Attributes:
        folder: The top of the working tree; the repository itself when it is bare.
        git_folder: The folder of this working tree's index.
        objects: The folder of its objects.
        common: The repository's folder that all its worktrees share, with its config and LFS objects.
        bare: Whether there is no working tree.
        env: Variables of every git process.
    """

    folder: Path
    git_folder: Path
    objects: Path
    common: Path
    bare: bool
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def at(cls, path: Path) -> Repository:
        """Returns the repository that contains a path.

        Raises:
            NotARepositoryError: No repository contains it.
            PackagingError: Git is not installed, or refuses the repository.
        """
        if not path.is_dir():
            raise NotARepositoryError(
                f"{format_path(str(path))} is not a folder: give GitArchivePackager(path=...) a folder of a repository"
            )
        try:
            bare = _git(path, ["rev-parse", "--is-bare-repository"]) == b"true\n"
        except PackagingError as error:
            if "dubious ownership" in str(error):
                raise PackagingError(
                    f"git refuses {format_path(str(path))}, which belongs to another user; "
                    f"if you trust it: git config --global --add safe.directory {format_path(str(path))}"
                ) from error
            if "not a git repository" in str(error):
                raise NotARepositoryError(
                    f"{format_path(str(path))} is not in a git repository: run 'git init' and commit there, "
                    "or give GitArchivePackager(path=...) one that is"
                ) from error
            raise
        # One call for each: a path may contain a newline.
        git_folder = _path(path, "--absolute-git-dir")
        top = git_folder if bare else _path(path, "--show-toplevel")
        return cls(top, git_folder, _path(path, "--git-path", "objects"), _path(path, "--git-common-dir"), bare)

    @classmethod
    def noted(cls, path: Path, notes: Notes) -> Repository:
        """Returns the repository that contains a path, without asking git if it was found before and still exists."""
        known = notes.get("repository")
        if (
            known
            and known.keys() >= set(_PATHS)
            and known["path"] == str(path.absolute())
            and [] != known["is"] == _identity(path, Path(known["folder"]))
        ):
            folder, git_folder, objects, common = (Path(known[name]) for name in _PATHS)
            return cls(folder, git_folder, objects, common, known["bare"])
        found = cls.at(path)
        notes.set(
            "repository",
            {
                "path": str(path.absolute()),
                "is": _identity(path, found.folder),
                **{name: str(getattr(found, name)) for name in _PATHS},
                "bare": found.bare,
            },
        )
        return found

    def git(self, *arguments: str, input: bytes | None = None) -> bytes:
        """Runs a git command and returns its output.

        Raises:
            PackagingError: It failed; the message has git's own error.
        """
        return _git(self.folder, arguments, env=self.env, input=input)

    def text(self, *arguments: str) -> str:
        """Runs a git command and returns its output as one line of text."""
        return self.git(*arguments).decode("utf-8", "surrogateescape").strip()

    def __str__(self) -> str:
        """Returns its folder for people."""
        return format_path(str(self.folder))

    @contextlib.contextmanager
    def run_interactively(self, *arguments: str) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
        """Runs a git command until the context ends; yields its standard input and output."""
        process = subprocess.Popen(
            _command(self.folder, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=_environment(self.env), bufsize=_BUFFER,
        )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - for the type checker
        try:
            yield process.stdin, process.stdout
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Repository]:
        """Yields the repository with a temporary folder for new objects and the index; does not change it."""
        with tempfile.TemporaryDirectory(prefix="nemo-airflow-git-") as folder:
            objects = Path(folder, "objects")
            objects.mkdir()
            env = {
                **self.env,
                "GIT_INDEX_FILE": str(Path(folder, "index")),
                "GIT_OBJECT_DIRECTORY": str(objects),
                "GIT_ALTERNATE_OBJECT_DIRECTORIES": self.all_objects,
            }
            yield dataclasses.replace(self, env=env)

    def write_object(self, kind: str, data: bytes, algorithm: str) -> str:
        """Writes an object into a scratch repository and returns its id."""
        digest = start_hash(len(data), algorithm, kind)
        digest.update(data)
        identifier = str(digest.hexdigest())
        path = Path(self.env["GIT_OBJECT_DIRECTORY"], identifier[:2], identifier[2:])
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(b"%s %d\0%s" % (kind.encode(), len(data), data), 1))
        return identifier

    def with_env(self, **env: str) -> Repository:
        """Returns the repository with additional variables for its git processes."""
        return dataclasses.replace(self, env={**self.env, **env})

    @property
    def all_objects(self) -> str:
        """The folders of its objects, in git's form for alternates."""
        own = [self.env.get("GIT_OBJECT_DIRECTORY", ""), str(self.objects)]
        others = self.env.get("GIT_ALTERNATE_OBJECT_DIRECTORIES", "")
        return os.pathsep.join(filter(None, [*map(_quoted, own), others]))

    @functools.cached_property
    def promisor(self) -> str:
        """The remote from which a partial clone gets the objects that it lacks; empty for a whole repository."""
        try:
            found = self.text("config", "--get-regexp", r"^remote\..*\.promisor$", "true")
        except PackagingError:  # git's error when there is none
            return ""
        return found.splitlines()[0].rpartition(" ")[0].removeprefix("remote.").removesuffix(".promisor")

    @property
    def is_partial(self) -> bool:
        """Whether it is a partial clone. Most repositories are not, which costs no process."""
        return b"promisor" in (self.common / "config").read_bytes() and bool(self.promisor)

    def origin(self) -> str:
        """Returns the address of the remote ``origin`` without credentials, or an empty string."""
        try:
            return hide_login(self.text("config", "--get", "remote.origin.url"))
        except PackagingError:  # git's error when there is none
            return ""

    def branch(self, ref: str) -> str:
        """Returns the name of the branch that a ref is; empty for a tag, a commit and a detached HEAD."""
        if ref == "HEAD":
            name = (self.git_folder / "HEAD").read_text(errors="surrogateescape").strip().removeprefix("ref: ")
            if name != "refs/heads/.invalid":  # as in a repository whose refs are in tables
                return name.removeprefix(_BRANCHES) if name.startswith(_BRANCHES) else ""
        try:
            name = self.text("rev-parse", "--verify", "--quiet", "--symbolic-full-name", "--end-of-options", ref)
        except PackagingError:
            return ""
        return next((name.removeprefix(each) for each in (_BRANCHES, _REMOTE_BRANCHES) if name.startswith(each)), "")


def hide_login(remote: str) -> str:
    """Returns a remote's address without user name, password and parameters, any of which may be a secret.

    The user ``git`` of an SSH address stays; it is the same for everybody.
    """
    address = re.sub(r"^(?:\w+::)+", "", remote)  # the name of a remote helper
    scheme, separator, rest = address.partition("://")
    if separator:
        host, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
        host = host if host.startswith("git@") and host.count("@") == 1 else host.rpartition("@")[2]
        return f"{scheme}{separator}{host}{slash}{path}"
    login, at, path = address.rpartition("@")
    # user@host:path; a path of this machine may have both characters, after a slash.
    return path if at and login != "git" and "/" not in login and ":" in path else address


def _identity(path: Path, top: Path) -> list[list[int]]:
    """Returns the folders and ``.git`` entries from a path up to the top of its repository."""
    found = []
    for folder in (path.resolve(), *path.resolve().parents):
        for each in (folder, folder / ".git"):
            with contextlib.suppress(OSError):
                about = each.stat()
                found.append([about.st_dev, about.st_ino])
        if folder == top:
            return found
    return []


def _path(folder: Path, *question: str) -> Path:
    """Returns a path from ``git rev-parse``."""
    return (folder / os.fsdecode(_git(folder, ["rev-parse", *question]).removesuffix(b"\n"))).resolve()


def _quoted(path: str) -> str:
    """Returns a path quoted for git's lists of paths, in which a colon is a separator."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if path else ""


_KEPT = re.compile(
    r"GIT_(SSH|CONFIG_(GLOBAL|SYSTEM|NOSYSTEM|COUNT|KEY_|VALUE_)|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM"
    r"|EXEC_PATH)"
)
"""Git's variables that a user sets for all repositories, as in a container: the locations of git and its config."""


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    # Without variables of an enclosing git hook or test, and without locks for optional refreshes.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _KEPT.match(name)}
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
        raise _failure(folder, arguments, done.stderr)
    return done.stdout


def _failure(folder: Path, arguments: tuple[str, ...] | list[str], stderr: bytes) -> PackagingError:
    words = stderr.decode("utf-8", "backslashreplace").strip().splitlines()
    return PackagingError(f"git {_verb(arguments)} in {format_path(str(folder))}: {words[0] if words else 'failed'}")


def _verb(arguments: tuple[str, ...] | list[str]) -> str:
    """Returns the command in git's arguments, after the settings in front of it."""
    rest = list(arguments)
    while rest[0] == "-c":
        del rest[:2]
    return rest[0]
