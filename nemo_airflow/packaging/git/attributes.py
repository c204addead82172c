"""Reads ``export-ignore`` and ``export-subst`` in ``.gitattributes`` in the same way as ``git archive``.

Only committed attributes count, so that a commit gives the same package everywhere: not those of a user or
a machine.
"""

from __future__ import annotations

import os
import posixpath
import re
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from nemo_airflow.packaging.git.objects import Entry
from nemo_airflow.packaging.git.repository import Repository

NAME = ".gitattributes"

_FORMAT = re.compile(rb"\$Format:([^$]*)\$")

_ALIKE = (
    "-c", "core.abbrev=auto", "-c", "i18n.logOutputEncoding=UTF-8", "-c", "mailmap.file=", "-c", "mailmap.blob=",
)  # fmt: skip
"""Settings that make formats independent of the user."""


def attribute_files(entries: Iterable[Entry]) -> list[Entry]:
    """Returns the ``.gitattributes`` files among the entries."""
    return [entry for entry in entries if posixpath.basename(entry.path) == NAME and entry.mode.startswith("100")]


def find_exported(
    repository: Repository, attributes: Sequence[Entry], entries: Sequence[Entry]
) -> tuple[list[Entry], set[str]]:
    """Returns the exported entries, and the paths of those with formats to fill in.

    Args:
        repository: The repository.
        attributes: The ``.gitattributes`` files of the entries' folders and of folders above.
        entries: All entries.
    """
    folders: set[str] = set()
    for entry in entries:
        above = posixpath.dirname(entry.path)
        while above and f"{above}/" not in folders:
            folders.add(f"{above}/")
            above = posixpath.dirname(above)
    # Git treats a submodule as a folder here.
    asked = [*folders, *(f"{e.path}/" if e.mode == "160000" else e.path for e in entries)]
    ignored: set[str] = set()
    filled: set[str] = set()
    for path, attribute in _set(repository, attributes, asked):
        (ignored if attribute == "export-ignore" else filled).add(path.rstrip("/"))
    return [entry for entry in entries if not _is_below(entry.path, ignored)], filled


def fill(repository: Repository, commit: str, data: bytes) -> bytes:
    """Fills in ``$Format:...$`` for the commit, like ``git archive``.

    ``git rev-list``, unlike ``git log``, ignores a user's settings for dates, signatures and names.
    """

    def filled(match: re.Match[bytes]) -> bytes:
        answer = repository.git(*_ALIKE, "rev-list", "-1", f"--format=format:{os.fsdecode(match[1])}", commit)
        return answer.partition(b"\n")[2].removesuffix(b"\n")  # after the line "commit <id>"

    return _FORMAT.sub(filled, data)


def _is_below(path: str, ignored: set[str]) -> bool:
    while path:
        if path in ignored:
            return True
        path = posixpath.dirname(path)
    return False


def _set(repository: Repository, attributes: Sequence[Entry], paths: Sequence[str]) -> list[tuple[str, str]]:
    """Returns pairs of a path and an attribute that is set on it."""
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-git-") as name:
        # A repository without config and info/attributes that borrows the other's objects.
        own = Path(name, "repository")
        for folder in ("objects", "refs"):
            (own / folder).mkdir(parents=True)
        (own / "HEAD").write_text("ref: refs/heads/none\n")
        wide = any(len(entry.id) == 64 for entry in attributes)
        (own / "config").write_text(
            "[core]\n\tbare = true\n\trepositoryFormatVersion = 1\n" + "[extensions]\n\tobjectFormat = sha256\n" * wide
        )
        asking = repository.with_env(
            GIT_DIR=str(own),
            GIT_INDEX_FILE=str(own / "index"),
            GIT_ATTR_NOSYSTEM="1",
            GIT_OBJECT_DIRECTORY=str(own / "objects"),
            GIT_ALTERNATE_OBJECT_DIRECTORIES=repository.all_objects,
        )
        listed = "".join(f"{entry.mode} {entry.id}\t{entry.path}\0" for entry in attributes)
        asking.git("update-index", "-z", "--index-info", input=os.fsencode(listed))
        answer = asking.git(
            "-c", "core.attributesFile=/dev/null", "check-attr", "--cached", "-z", "--stdin",
            "export-ignore", "export-subst", input=os.fsencode("".join(f"{path}\0" for path in paths)),
        )  # fmt: skip
    fields = os.fsdecode(answer).split("\0")
    return [(fields[i], fields[i + 1]) for i in range(0, len(fields) - 2, 3) if fields[i + 2] == "set"]
