"""Describes an exception for a record, with bounded size."""

from typing import Any, Dict

MESSAGE_LIMIT = 64 << 10
TRACEBACK_LIMIT = 256 << 10
"""Bytes of UTF-8. An error goes into Airflow's database, and is in memory for each task."""


def describe_error(error: BaseException, traceback: str) -> Dict[str, str]:
    """Returns an exception as in the end record.

    Args:
        error: The exception.
        traceback: Its traceback as text; empty where it would not help.
    """
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error).strip()
    except Exception as inner:  # noqa: BLE001 - the user's own class, whose __str__ fails
        message = f"(its text cannot be read: {type(inner).__name__})"
    return bound_error({"type": name, "message": message, "traceback": traceback})


def bound_error(error: Dict[str, Any]) -> Dict[str, str]:
    """Returns an error whose texts are cut to the limits."""
    return {
        "type": cut_text(str(error.get("type") or ""), MESSAGE_LIMIT),
        "message": cut_text(str(error.get("message") or ""), MESSAGE_LIMIT),
        "traceback": cut_text(str(error.get("traceback") or ""), TRACEBACK_LIMIT),
    }


def cut_text(text: str, limit: int) -> str:
    """Returns a text of at most this many bytes of UTF-8; a longer one is cut to its beginning and end.

    A lone surrogate, which UTF-8 cannot hold, is replaced by its backslash form.
    """
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit:
        return text
    half = (limit - 64) // 2
    begin, end = data[:half].decode("utf-8", "ignore"), data[-half:].decode("utf-8", "ignore")
    return f"{begin}\n... {len(data) - 2 * half} bytes left out ...\n{end}"
