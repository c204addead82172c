"""The command line of the launcher that starts the processes of a job."""

import os
import re
import sys
import zlib
from typing import Any, Dict, List

_FIRST_PORT, _PORTS = 20000, 12000
"""Below the range of ephemeral ports."""

PLACEHOLDERS = ("brace", "python", "runner", "folder", "key", "head", "port", "nodes", "node_rank")

_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")


def literal(text: str) -> str:
    """Returns a part of a launcher's command line for a literal text, in which no placeholder is filled."""
    return _PLACEHOLDER.sub(lambda match: "{brace}" + match[1] + "}", text)


def command(job: Dict[str, Any], folder: str) -> List[str]:
    """Returns the launcher's command line with its ``{placeholders}`` filled.

    ``{head}`` and ``{port}`` are the address where the processes meet, ``{nodes}`` and ``{node_rank}`` which of
    how many machines this one is: from the environment that the back-end sets. ``{brace}`` is an opening brace:
    see :func:`literal`.
    """
    port = _FIRST_PORT + zlib.crc32(job["key"].encode()) % _PORTS
    values = {
        "brace": "{",
        "python": sys.executable,
        "runner": os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py"),
        "folder": folder,
        "key": job["key"],
        "head": os.environ.setdefault("MASTER_ADDR", "127.0.0.1"),
        "port": os.environ.setdefault("MASTER_PORT", str(port)),
        "nodes": os.environ.setdefault("NNODES", "1"),
        "node_rank": os.environ.setdefault("NODE_RANK", "0"),
    }
    return [_PLACEHOLDER.sub(lambda match: values[match[1]], argument) for argument in job["launch"]]
