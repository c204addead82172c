"""What an examination of a back-end, or of this machine, has found."""

from __future__ import annotations

import dataclasses
import enum


class Verdict(enum.StrEnum):
    """How one thing fares."""

    OK = "ok"
    WARN = "warn"
    """Jobs run, with less than there could be."""
    FAIL = "fail"
    """Jobs do not run."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """What was found of one thing.

    Attributes:
        name: The thing, in a few words.
        verdict: How it fares.
        said: What was seen, in one line.
        fix: The command to run, or the thing to change, if it is not as it should be.
    """

    name: str
    verdict: Verdict
    said: str = ""
    fix: str = ""


def good(name: str, said: str = "") -> Finding:
    """Returns that something is as it should be."""
    return Finding(name, Verdict.OK, said)


def doubtful(name: str, said: str, fix: str = "") -> Finding:
    """Returns that jobs run, with less than there could be."""
    return Finding(name, Verdict.WARN, said, fix)


def bad(name: str, said: str, fix: str = "") -> Finding:
    """Returns that jobs do not run so."""
    return Finding(name, Verdict.FAIL, said, fix)
