"""A shared store in a bucket of Google Cloud Storage, which can also let a job write below one prefix."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

from nemo_airflow.store.buckets import LARGEST, PIECE
from nemo_airflow.store.reading import ReadingPlace

_ALGORITHM = "GOOG4-RSA-SHA256"
_SERVICE = "https://storage.googleapis.com"


class GooglePlace(ReadingPlace):
    """Files as objects below a prefix of a bucket; see :class:`.ObjectPlace`."""

    tag_field = "generation"

    def grant(self, folder: str, seconds: float, route: str = "", machines: int = 1) -> dict[str, Any]:
        """Returns leave to write below a folder of the store: a signed policy document, version 4. Never shown.

        Args:
            folder: The folder, without a slash at its end.
            seconds: How long it holds.
            route: The service's address as whoever uses it knows it; empty for that of the store.
            machines: Not used: the leave is for the whole folder.

        Returns:
            What the job needs; empty where the route is not an address, or there is no key to sign with.

        Raises:
            StoreError: The key cannot be used.
        """
        if route.startswith("/"):
            return {}
        with self._errors():
            from google.auth.credentials import Signing

            credentials = self._fs.credentials.credentials
            if not isinstance(credentials, Signing):
                return {}
            signer: Any = credentials  # its methods have no types
            bucket, prefix = self.key(f"{folder}/")
            now = datetime.datetime.now(datetime.UTC)
            date = now.strftime("%Y%m%dT%H%M%SZ")
            fields = {
                "x-goog-algorithm": _ALGORITHM,
                "x-goog-credential": f"{signer.signer_email}/{date[:8]}/auto/storage/goog4_request",
                "x-goog-date": date,
            }
            conditions: list[Any] = [
                {"bucket": bucket},
                ["starts-with", "$key", prefix],
                ["content-length-range", 0, LARGEST],
                *({name: value} for name, value in fields.items()),
            ]
            expiration = (now + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
            policy = base64.b64encode(json.dumps({"conditions": conditions, "expiration": expiration}).encode())
            signature = signer.sign_bytes(policy).hex()
            fields |= {"policy": policy.decode(), "x-goog-signature": signature}
            return {
                "url": f"{route or self._options.get('endpoint_url') or _SERVICE}/{bucket}/",
                "prefix": prefix,
                "fields": fields,
            }

    def pieces_of(self, size: int) -> dict[str, int]:
        """See :meth:`.ObjectPlace.pieces_of`."""
        return {"chunksize": PIECE}

    def copy(self, source: str, target: str, tag: str) -> None:
        """See :meth:`.ReadingPlace.copy`."""
        again: dict[str, str] = {}
        with self._errors():
            while True:
                try:
                    answer = self._fs.call(
                        "POST",
                        "b/{}/o/{}/rewriteTo/b/{}/o/{}",
                        *self.key(source),
                        *self.key(target),
                        headers={"Content-Type": "application/json"},
                        json_out=True,
                        ifSourceGenerationMatch=tag,
                        **again,
                    )
                except FileNotFoundError:
                    raise self.missing(source) from None
                if answer["done"]:
                    return
                again = {"rewriteToken": answer["rewriteToken"]}  # a large object takes several calls
