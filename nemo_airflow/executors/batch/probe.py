"""What an examination tries of a batch scheduler."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Probe:
    """A command that succeeds where something is as a job needs it.

    Attributes:
        name: The thing, in a few words.
        command: POSIX shell; its last line of output is shown.
        fix: What to change where it fails.
        needed: Whether no job runs without.
        gets_script: Whether it reads a job's start script from ``$script``.
    """

    name: str
    command: str
    fix: str = ""
    needed: bool = True
    gets_script: bool = False
