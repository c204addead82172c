"""Job keys identify a job in any process and on any back-end."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

KEY_LENGTH = 63
"""Longest key: the limit of a DNS label, the tightest of all the names that a key becomes."""

_HASH_LENGTH = 16


def job_key(identity: Mapping[str, object], *, name: str, attempt: int) -> str:
    """Returns the key of one attempt at a job.

    The same arguments give the same key in every process, so that a job that is submitted twice is
    started once; anything that distinguishes jobs must be in ``identity``.

    Args:
        identity: Identity of the job: the Airflow ids, the installation (two may share a cluster and
            have the same ids), the digests of plan and executor.
        name: For people: the readable start of the key.
        attempt: 1 for the first; a retry after a failure is a new attempt, a retry after a
            crash is not.

    Returns:
        At most 63 characters of ``[a-z0-9-]``, beginning with a letter.
    """
    text = json.dumps({**identity, "attempt": attempt}, sort_keys=True, separators=(",", ":"), default=str)
    suffix = f"{hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]}-{attempt}"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"job-{slug}".rstrip("-")
    return f"{slug[: KEY_LENGTH - len(suffix) - 1].rstrip('-')}-{suffix}"
