"""Where a job's outputs go by themselves: by signed requests into a bucket, or into a folder that is mounted."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import random
import re
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, List, Optional, Tuple
from urllib.parse import urlsplit

CONNECT_WITHIN = 5.0
"""Seconds to reach the store; the job waits so long at its end where there is no way to it."""

ANSWER_WITHIN = 60.0
PATIENCE = 60.0
"""Seconds without any success after which a store that has answered before is given up."""

_DAMAGED_ON_THE_WAY = 3
"""Times that a piece is sent which arrives damaged."""

_SIGNATURES = ("x-amz-signature", "x-amz-security-token", "x-goog-signature", "sealing-key")
"""Fields of a grant without which its others are of no use."""

Blocks = Callable[[], Iterator[bytes]]

Send = Callable[[http.client.HTTPConnection], Optional[OSError]]
"""Sends a request; returns what has cut it off, after which an answer may be there all the same."""


class SendError(Exception):
    """The store cannot be reached, or refuses; the message never quotes the grant."""


class Target:
    """A place for whole files by name, which several threads use at once.

    Attributes:
        small: Bytes of a file below which it is to travel in a pack with others.
        most_pieces: Pieces of one file at most: those of a larger file are larger.
    """

    small = 256 << 10
    most_pieces = 9000  # no store joins more than 10,000

    def put(self, name: str, sha256: str, size: int, blocks: Blocks) -> str:
        """Stores a file, and returns the name that it got.

        Args:
            name: Its name, below the prefix that was granted.
            sha256: SHA-256 of its content, in hex.
            size: Bytes of its content.
            blocks: Returns the content in blocks, from its beginning; called again for another try.

        Raises:
            SendError: It cannot be stored.
        """
        raise NotImplementedError

    def keep(self, name: str, stored: str) -> None:
        """Notes what an earlier start of the job has stored: its name, and the name that it got."""

    def stop(self) -> None:
        """Cuts off what is being stored."""

    def close(self) -> None:
        """Closes all connections."""


def secrets_in(grant: Mapping[str, Any]) -> List[str]:
    """Returns what of a grant must be in no output."""
    fields: Mapping[str, Any] = grant.get("fields") or {}
    return [str(value) for name, value in fields.items() if name.lower() in _SIGNATURES]


class FolderTarget(Target):
    """A folder of the store, where that is mounted.

    Args:
        folder: The job's own folder in it; the store's own is to be there, which shows that it is mounted.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._stopped = False

    def put(self, name: str, sha256: str, size: int, blocks: Blocks) -> str:
        """See :meth:`Target.put`."""
        store = os.path.dirname(os.path.dirname(self._folder))
        if not os.path.isdir(store):
            raise SendError(f"{store} is not a folder of this machine, so the store is not mounted there")
        new = os.path.join(self._folder, f".new-{uuid.uuid4().hex}")
        try:
            os.makedirs(self._folder, exist_ok=True)
            try:
                with open(new, "wb") as file:
                    for block in blocks():
                        if self._stopped:
                            raise SendError("the job was told to end")
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(new, os.path.join(self._folder, name))
            finally:
                if os.path.exists(new):
                    os.unlink(new)
        except OSError as error:
            raise SendError(f"the store's folder {store} refuses: {error.strerror}") from error
        return name

    def stop(self) -> None:
        """See :meth:`Target.stop`."""
        self._stopped = True


class ServiceTarget(Target):
    """A service, asked by requests that carry their own signature.

    Args:
        url: Its address, with the path of what is written to.
    """

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._idle: List[http.client.HTTPConnection] = []
        self._busy: List[http.client.HTTPConnection] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._succeeded_at = 0.0

    def request(self, send: Send) -> None:
        """Makes a request, again for a while where that may help.

        Raises:
            SendError: The service refuses, or cannot be reached.
        """
        pause, damaged, begun = 0.5, 0, time.monotonic()
        while True:
            status, reason = self._try(send)
            if 200 <= status < 300:
                self._succeeded_at = time.monotonic()
                return
            if self._stopped.is_set():
                raise SendError("it was given up")
            if status == 400 and re.search("Digest|Checksum|BadRequest|Md5Mismatch", reason):
                damaged += 1
            may_succeed = status == 0 or status in (408, 429) or status >= 500 or 0 < damaged < _DAMAGED_ON_THE_WAY
            waited = time.monotonic() - max(begun, self._succeeded_at)
            if not may_succeed or waited >= (PATIENCE if self._succeeded_at else CONNECT_WITHIN):
                raise SendError(f"{self._where} {reason}")
            self._stopped.wait(pause * random.uniform(0.5, 1))  # noqa: S311 - spreads the tries of several jobs
            pause = min(pause * 2, 8.0)

    def stop(self) -> None:
        """See :meth:`Target.stop`."""
        self._stopped.set()
        with self._lock:
            for connection in self._busy:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # the other side has closed it
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """See :meth:`Target.close`."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    @property
    def _where(self) -> str:
        return f"the store at {self._url.scheme}://{self._url.netloc}"

    def _try(self, send: Send) -> Tuple[int, str]:
        """Returns the answer's status, and why it is no success; status 0 where there is no answer."""
        with self._lock:
            connection = self._idle.pop() if self._idle else self._connect()
            self._busy.append(connection)
        is_reusable = False
        try:
            if connection.sock is None:
                connection.timeout = CONNECT_WITHIN
                connection.connect()
                opened: socket.socket | None = connection.sock
                if opened is not None:
                    opened.settimeout(ANSWER_WITHIN)
            broken = send(connection)
            try:
                answer = connection.getresponse()
                text = answer.read(1 << 16).decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                return 0, f"does not answer: {describe_error(broken or error)}"
            is_reusable = not answer.will_close and broken is None
            return answer.status, f"refuses: {error_in(text, answer.status)}"
        except OSError as error:
            return 0, f"cannot be reached from the job: {describe_error(error)}"
        finally:
            with self._lock:
                self._busy.remove(connection)
                if is_reusable:
                    self._idle.append(connection)
            if not is_reusable:
                connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(str(self._url.hostname), self._url.port)


class BucketTarget(ServiceTarget):
    """A prefix of a bucket of S3 or Google Cloud, by POST requests with a signed policy.

    Args:
        grant: ``url`` of the bucket, the ``prefix`` of all keys, and the form's signed ``fields``.
    """

    def __init__(self, grant: Mapping[str, Any]) -> None:
        super().__init__(str(grant["url"]))
        self._prefix = str(grant["prefix"])
        self._fields = {str(name): str(value) for name, value in grant["fields"].items()}

    def put(self, name: str, sha256: str, size: int, blocks: Blocks) -> str:
        """See :meth:`Target.put`."""
        self.request(lambda connection: self._send(connection, name, sha256, size, blocks))
        return name

    def _send(
        self, connection: http.client.HTTPConnection, name: str, sha256: str, size: int, blocks: Blocks
    ) -> OSError | None:
        boundary = uuid.uuid4().hex
        fields = {**self._fields, "key": f"{self._prefix}{name}"}
        if "x-goog-signature" not in fields:  # Google's forms have no field for a checksum
            fields["x-amz-checksum-algorithm"] = "SHA256"
            fields["x-amz-checksum-sha256"] = base64.b64encode(bytes.fromhex(sha256)).decode("ascii")
        head = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        start, end = head.encode("utf-8"), f"\r\n--{boundary}--\r\n".encode("ascii")
        connection.putrequest("POST", self._url.path or "/", skip_accept_encoding=True)
        connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
        connection.putheader("Content-Length", str(len(start) + size + len(end)))
        try:
            connection.endheaders(start)
            for block in blocks():
                if self._stopped.is_set():
                    raise SendError("it was given up")
                connection.send(block)
            connection.send(end)
        except OSError as error:
            return error
        return None


def describe_error(error: BaseException) -> str:
    """Returns in a few words why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted on the job's host: {error.verify_message}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]


def error_in(text: str, status: int) -> str:
    """Returns the code and message of a store's error; not its other parts, which may quote the request."""
    found = [match[1] for tag in ("Code", "Message") if (match := re.search(f"<{tag}>([^<]*)</{tag}>", text))]
    return " ".join(": ".join(found).split())[:300] or f"status {status}"
