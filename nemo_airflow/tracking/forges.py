"""Finds the web pages of a repository and of a commit from the address of a git remote. Asks nobody."""

from __future__ import annotations

import re
from urllib.parse import quote

_REMOTE = re.compile(
    r"(?:(?P<scheme>https?|ssh|git)://)?(?:git@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*\.[A-Za-z0-9-]+)(?P<port>:\d+)?"
    r"[:/](?P<path>[^?#\s]+?)(?:\.git)?/?"
)
"""A remote's address without a login: ``https://host/path``, ``ssh://git@host:port/path`` or ``git@host:path``."""

_COMMITS = {"gitlab": "-/commit", "bitbucket": "commits"}
"""Path of a commit's page below that of its repository, by a part of the host's name; ``commit`` elsewhere."""


def repository_page(origin: str) -> str:
    """Returns the address of a repository's page; empty where the remote is no host with a name."""
    match = _REMOTE.fullmatch(origin)
    # host.example:path is a path of this machine too, and so is ./host.example/path.
    if match is None or not (match["scheme"] or origin.startswith("git@")):
        return ""
    is_web = match["scheme"] in ("http", "https")
    # The port of SSH is not that of the pages.
    scheme, port = (match["scheme"], match["port"] or "") if is_web else ("https", "")
    return f"{scheme}://{match['host']}{port}/{quote(match['path'].lstrip('/'), safe='/~%')}"


def commit_page(origin: str, commit: str) -> str:
    """Returns the address of a commit's page; empty where that of its repository is not known."""
    page = repository_page(origin)
    if not page or not commit:
        return ""
    host = page.split("/")[2]
    return f"{page}/{next((path for name, path in _COMMITS.items() if name in host), 'commit')}/{commit}"
