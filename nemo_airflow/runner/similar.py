"""What to add to a message about a name that is not known."""

import difflib
from typing import Iterable


def similar(name: str, names: Iterable[str]) -> str:
    """Returns the names that may have been meant; nothing where none comes near."""
    close = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    return "; did you mean {}?".format(" or ".join(map(repr, close))) if close else ""


def nearest(name: str, names: Iterable[str], what: str = "valid") -> str:
    """Returns the names that may have been meant, and all that there are."""
    listed = list(names)
    return "{} {}: {}".format(similar(name, listed) or ";", what, ", ".join(listed) or "none")
