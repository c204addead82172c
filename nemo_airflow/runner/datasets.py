"""Records the data sets that a job reads, as inputs of its run. Standard library only."""

import json
import os
import re
from typing import Optional, Union

from nemo_airflow.runner import channel

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#]*@)?([^?#]*)(\?[^#]*)?")
_SIGNED = re.compile("sig|token|key|secret|password|credential", re.IGNORECASE)


def log_input(
    source: "Union[str, os.PathLike[str]]",
    name: Optional[str] = None,
    *,
    digest: Optional[str] = None,
    context: str = "",
) -> None:
    """Records a data set that the job reads, as an input of its run. Does nothing outside a job.

    Args:
        source: Address of the data set, such as ``s3://bucket/train`` or ``https://host/train.csv``; or the path of a
            file or folder where the job runs. A login or a signature in an address is left out.
        name: Its name; the last part of the source when None.
        digest: What tells this version from others, at most 36 characters of it. When None, the SHA-256 of a file or
            folder, which is read for it; for an address the digest of name and address.
        context: What it is for: ``training``, ``validation`` ...

    Raises:
        FileNotFoundError: The source is neither an address nor a path that exists.
        ValueError: It is a folder without files, or one with a link that leads to nothing or outside.
    """
    text = os.fspath(source)
    address = _ADDRESS.fullmatch(text)
    if address is None and not os.path.exists(text):
        raise FileNotFoundError(
            f"log_input: {os.path.abspath(text)} does not exist: give a path where the job runs, or an address such as "
            "s3://bucket/path"
        )
    if not channel.in_job():
        return
    if address is None:
        place = os.path.abspath(text)
        kind, where = "local", {"uri": place}
    else:
        scheme, rest, query = address.groups(default="")
        place = f"{scheme}://{rest}{'' if _SIGNED.search(query) else query}"
        kind, where = ("http", {"url": place}) if scheme in ("http", "https") else (scheme, {"uri": place})
    name = name or os.path.basename(place.partition("?")[0].rstrip("/")) or place
    digest = digest or _digest_of(address, name, place)
    channel.send("input", name=name, source=json.dumps(where), source_type=kind, digest=digest, context=context)


def _digest_of(address: object, name: str, place: str) -> str:
    if address is None:
        from nemo_airflow.runner import digests

        return digests.digest_of(place)
    import hashlib

    return hashlib.sha256(json.dumps([name, place]).encode()).hexdigest()[:16]
