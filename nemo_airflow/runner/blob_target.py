"""Where a job's outputs go by themselves in Azure's blob storage.

A signature there is for one blob of a known name, or for a whole container. So the job is given signatures for some
blobs with numbers for names, and says in its manifest which content is in which.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Dict, List
from urllib.parse import quote

from nemo_airflow.runner.upload_targets import Blocks, SendError, ServiceTarget

_BLOCK = 8 << 20
"""Bytes of one request. What is larger is put together by the service from a list of blocks."""


class BlobTarget(ServiceTarget):
    """Some blobs below a prefix of a container, by requests with a shared access signature each.

    Args:
        grant: ``url`` of the prefix, the ``query`` that all signatures are for, the signatures by the names of their
            ``blobs``, sealed with the ``sealing-key`` of ``fields``; and the number of ``machines`` that write there.
        machine: Which of these this one is: each has blobs of its own, and so have checkpoints, as further machines.
    """

    small = 4 << 20
    most_pieces = 16

    def __init__(self, grant: Mapping[str, Any], machine: int = 0) -> None:
        super().__init__(str(grant["url"]))
        self._query = str(grant["query"])
        self._signatures: Dict[str, str] = unseal(str(grant["blobs"]), str(grant["fields"]["sealing-key"]))
        numbers = [name for name in self._signatures if name.isdigit()]
        self._free = sorted(numbers, key=int, reverse=True)[machine :: 2 * int(grant.get("machines", 1))]
        self._names: Dict[str, str] = {}
        self._choosing = threading.Lock()

    def keep(self, name: str, stored: str) -> None:
        """See :meth:`Target.keep`."""
        self._names[name] = stored
        if stored in self._free:
            self._free.remove(stored)

    def put(self, name: str, sha256: str, size: int, blocks: Blocks) -> str:
        """See :meth:`Target.put`."""
        blob = self._choose(name)
        if size <= _BLOCK:
            self._put(blob, "", b"".join(blocks()), {"x-ms-blob-type": "BlockBlob"})
            return blob
        ids: List[str] = []
        for content in _in_blocks(blocks()):
            ids.append(base64.b64encode(b"%08d" % len(ids)).decode("ascii"))
            self._put(blob, f"&comp=block&blockid={quote(ids[-1], safe='')}", content)
        listed = "".join(f"<Latest>{each}</Latest>" for each in ids)
        text = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'
        self._put(blob, "&comp=blocklist", text.encode("ascii"))
        return blob

    def _choose(self, name: str) -> str:
        """Returns the blob for a content, the same at each call."""
        if name in self._signatures:
            return name
        with self._choosing:
            if name not in self._names:
                if not self._free:
                    raise SendError("the outputs are in more pieces than the store was asked to let the job write")
                self._names[name] = self._free.pop()
            return self._names[name]

    def _put(self, blob: str, what: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        path = f"{self._url.path}{blob}?{self._query}&sig={quote(self._signatures[blob], safe='')}{what}"
        md5 = hashlib.md5(content, usedforsecurity=False).digest()

        def send(connection: http.client.HTTPConnection) -> OSError | None:
            if self._stopped.is_set():
                raise SendError("it was given up")
            connection.putrequest("PUT", path, skip_accept_encoding=True)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(content)))
            connection.putheader("Content-MD5", base64.b64encode(md5).decode("ascii"))
            try:
                connection.endheaders(content)
            except OSError as error:
                return error
            return None

        self.request(send)


def seal(values: Mapping[str, str], key: str) -> str:
    """Returns values as a text that is of no use without the key, so that the key alone has to be hidden.

    Args:
        values: Texts by name.
        key: A random text that seals nothing else.
    """
    return base64.b64encode(_mix(json.dumps(dict(values)).encode("ascii"), key)).decode("ascii")


def unseal(text: str, key: str) -> Dict[str, str]:
    """The inverse of :func:`seal`."""
    return {str(name): str(value) for name, value in json.loads(_mix(base64.b64decode(text), key)).items()}


def _mix(data: bytes, key: str) -> bytes:
    stream = hashlib.shake_256(key.encode("ascii")).digest(len(data))
    return (int.from_bytes(data, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(data), "big")


def _in_blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Joins pieces into blocks of one size; the last one may be smaller."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= _BLOCK:
            yield bytes(waiting[:_BLOCK])
            del waiting[:_BLOCK]
    if waiting:
        yield bytes(waiting)
