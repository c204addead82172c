"""Checks addresses for links: a record or an XCom may contain any text, and a page would run ``javascript:``."""

from __future__ import annotations


def web_address(value: object) -> str:
    """Returns the value if it is an ``http`` or ``https`` address, else an empty text."""
    return value if isinstance(value, str) and value.lower().startswith(("http://", "https://")) else ""
