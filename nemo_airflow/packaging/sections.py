"""The patch of a package that is made of several: a section for each of them that has uncommitted changes.

The paths in it are those of the package's files, so that all of it can be applied where the package is laid out, and
a section also at the top of its own repository, once the folder of the part is taken off the paths. A section begins
with a line that is no part of a patch to ``git apply``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_HEAD = re.compile(r"^# part (\d+): [^\n]*\n", re.MULTILINE)


def section(number: int, part: Mapping[str, str], patch: bytes) -> bytes:
    """Returns the section of a part.

    Args:
        number: Which of the parts it is, from 0.
        part: It, as :class:`~nemo_airflow.job.Package` describes it.
        patch: Its changes.
    """
    where = part["prefix"] or "the root"
    text = " ".join(f"{where}, of {part['origin'] or 'a repository without origin'} at {part['commit']}".split())
    return f"# part {number}: {text}\n".encode("utf-8", "surrogateescape") + patch


def split(patch: str) -> dict[int, str]:
    """Returns the changes of each part that has some, by its number."""
    _, *found = _HEAD.split(patch)
    return dict(zip(map(int, found[::2]), found[1::2], strict=True))
