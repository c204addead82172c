"""Suggestions for messages about an unknown name."""

import difflib
from typing import Iterable


def similar(name: str, names: Iterable[str]) -> str:
    """Returns a suggestion of similar names; empty where none is similar."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return "; did you mean {}?".format(" or ".join(map(repr, close))) if close else ""


def nearest(name: str, names: Iterable[str], what: str = "valid") -> str:
    """Returns a suggestion of similar names, and the list of all names."""
    listed = list(names)
    return "{} {}: {}".format(similar(name, listed) or ";", what, ", ".join(listed) or "none")
