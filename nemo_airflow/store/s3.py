"""A shared store in an S3 bucket, which can also let a job write below one prefix, and copies on its own side."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import StoreError
from nemo_airflow.store.buckets import LARGEST, PIECE, ObjectPlace

_MOST_PIECES = 9000
"""Pieces of a file: the service joins no more than 10,000."""


class S3Place(ObjectPlace):
    """Files as objects below a prefix of an S3 bucket; see :class:`.ObjectPlace`."""

    def __init__(self, protocol: str, root: str, options: Mapping[str, Any], where: str) -> None:
        super().__init__(protocol, root, options, where)
        self._signers: dict[str, Any] = {}

    @property
    def endpoint(self) -> str:
        """The address of the service; empty for Amazon's own."""
        return str(self._options.get("endpoint_url") or _from_environment() or "")

    def grant(self, folder: str, seconds: float, route: str = "", machines: int = 1) -> dict[str, Any]:
        """Returns leave to write below a folder of the store: a signed policy of POST requests. Never shown.

        Args:
            folder: The folder, without a slash at its end.
            seconds: How long it holds.
            route: The service's address as whoever uses it knows it; empty for that of the store.
            machines: Not used: the leave is for the whole folder.

        Returns:
            What the job needs; empty where the route is not an address.

        Raises:
            StoreError: There are no credentials to sign with.
        """
        if route.startswith("/"):
            return {}
        with self._errors():
            bucket, prefix = self.key(f"{folder}/")
            signed = self._signer(route).generate_presigned_post(
                bucket,
                f"{prefix}${{filename}}",
                Fields={},
                Conditions=[
                    ["content-length-range", 0, LARGEST],
                    {"x-amz-checksum-algorithm": "SHA256"},
                    ["starts-with", "$x-amz-checksum-sha256", ""],
                ],
                ExpiresIn=int(seconds),
            )
        return {"url": signed["url"], "prefix": prefix, "fields": signed["fields"]}

    def sign(self, name: str, seconds: float, route: str = "") -> str:
        """See :meth:`.Place.sign`."""
        if route.startswith("/"):
            return ""
        bucket, key = self.key(name)
        with self._errors():
            signer = self._signer(route)
            return str(signer.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key}, int(seconds)))

    def _signer(self, route: str) -> Any:
        """Returns a client that signs for the service at an address, and connects to nothing."""
        if route not in self._signers:
            import botocore.session
            from botocore.config import Config

            session = botocore.session.Session(profile=self._options.get("profile"))
            options = dict(self._options.get("config_kwargs") or {})
            self._signers[route] = session.create_client(
                "s3",
                region_name=(self._options.get("client_kwargs") or {}).get("region_name")
                or session.get_config_variable("region")
                or "us-east-1",
                endpoint_url=route or self._options.get("endpoint_url"),
                aws_access_key_id=self._options.get("key"),
                aws_secret_access_key=self._options.get("secret"),
                aws_session_token=self._options.get("token"),
                config=Config(**{**options, "signature_version": "s3v4"}),
            )
        return self._signers[route]

    def pieces_of(self, size: int) -> dict[str, int]:
        """See :meth:`.ObjectPlace.pieces_of`."""
        return {"chunksize": max(PIECE, -(-size // _MOST_PIECES)), "max_concurrency": 1}

    def verify(self, name: str, sha256: str, size: int) -> str:
        """Compares an object with its SHA-256: the one that the service has computed, else by reading it.

        Returns:
            The object's tag, which changes with its content.

        Raises:
            StoreError: It is not there, or another one.
        """
        bucket, key = self.key(name)
        with self._errors():
            try:
                found = self.call("head_object", Bucket=bucket, Key=key, ChecksumMode="ENABLED")
            except FileNotFoundError:
                raise self.missing(name) from None
            digest = str(found.get("ChecksumSHA256") or "")
            actual = base64.b64decode(digest).hex() if digest and "-" not in digest else self.read_digest(name)
        if (actual, found["ContentLength"]) != (sha256, size):
            raise self.not_as_named(name)
        return str(found["ETag"])

    def copy(self, source: str, target: str, tag: str) -> None:
        """Has the service copy an object to another name of the store.

        Args:
            source: Its name.
            target: The copy's name.
            tag: The object's tag; see :meth:`verify`.

        Raises:
            StoreError: It is not there, or was changed meanwhile; or the service refuses.
        """
        self.copy_out(source, *self.key(target), tag=tag)

    def copy_out(self, source: str, bucket: str, key: str, tag: str = "") -> None:
        """Has the service copy an object of the store to any bucket of the same service."""
        own, at = self.key(source)
        matches = {"CopySourceIfMatch": tag} if tag else {}
        with self._errors():
            try:
                self.call("copy_object", Bucket=bucket, Key=key, CopySource={"Bucket": own, "Key": at}, **matches)
            except FileNotFoundError as error:
                raise StoreError(f"the store {self.where} cannot copy {source} to {bucket}: {error}") from None

    def join_out(self, sources: Sequence[str], bucket: str, key: str) -> None:
        """Has the service make one object of several of the store, which all but the last have 5 MiB or more."""
        with self._errors():
            upload = self.call("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
            ids = {"Bucket": bucket, "Key": key, "UploadId": upload}
            try:
                parts = []
                for number, source in enumerate(sources, 1):
                    own, at = self.key(source)
                    done = self.call(
                        "upload_part_copy", PartNumber=number, CopySource={"Bucket": own, "Key": at}, **ids
                    )
                    parts.append({"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]})
                self.call("complete_multipart_upload", MultipartUpload={"Parts": parts}, **ids)
            except BaseException:
                self.call("abort_multipart_upload", **ids)
                raise

    def write_out(self, bucket: str, key: str, data: bytes) -> None:
        """Writes a small object into any bucket of the same service."""
        with self._errors():
            self.call("put_object", Bucket=bucket, Key=key, Body=data)

    @property
    def call(self) -> Callable[..., Any]:
        """Makes a call of the service's API, with the store's credentials."""
        call: Callable[..., Any] = self._fs.call_s3
        return call


def _from_environment() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
