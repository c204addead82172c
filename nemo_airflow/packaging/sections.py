"""The patch of a package with several parts: a section for each part with uncommitted changes.

Its paths are those of the package's files, so that it can be applied to the unpacked package, and
a section also at the top of its repository, after removing the part's folder from the paths. A section begins
with a line that ``git apply`` ignores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEAD = re.compile(r"^# part (\d+): [^\n]*\n", re.MULTILINE)


def section(number: int, part: Mapping[str, str], patch: bytes) -> bytes:
    """Returns the section of a part.

    Args:
        number: The part's number, from 0.
        part: The part, as in :class:`~nemo_airflow.job.Package`.
        patch: Its changes.
    """
    where = part["prefix"] or "the root"
    text = " ".join(f"{where}, of {part['origin'] or 'a repository without origin'} at {part['commit']}".split())
    return f"# part {number}: {text}\n".encode("utf-8", "surrogateescape") + patch


def split(patch: str) -> dict[int, str]:
    """Returns the changes of each changed part, by its number."""
    _, *found = _HEAD.split(patch)
    return dict(zip(map(int, found[::2]), found[1::2], strict=True))
