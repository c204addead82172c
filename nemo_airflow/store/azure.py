"""A shared store in a container of Azure's blob storage, which can also let a job write some blobs."""

from __future__ import annotations

import asyncio
import datetime
import secrets
from typing import Any

from nemo_airflow.exceptions import StoreError
from nemo_airflow.runner.blob_target import seal
from nemo_airflow.runner.checkpoint_uploads import MANIFEST as CHECKPOINTS
from nemo_airflow.runner.uploads import manifest_name
from nemo_airflow.store.buckets import PIECE
from nemo_airflow.store.reading import ReadingPlace

_BLOBS = 1000
"""Pieces that a job may write: their signatures have to fit into a variable of a process's environment."""

_PAUSE = 0.2


class AzurePlace(ReadingPlace):
    """Files as blobs below a prefix of a container; see :class:`.ObjectPlace`."""

    tag_field = "etag"

    def grant(self, folder: str, seconds: float, route: str = "", machines: int = 1) -> dict[str, Any]:
        """Returns leave to write some blobs in a folder of the store: a shared access signature for each. Never shown.

        Args:
            folder: The folder, without a slash at its end.
            seconds: How long it holds.
            route: The service's address as whoever uses it knows it; empty for that of the store.
            machines: How many machines write there: each has a manifest.

        Returns:
            What the job needs; empty where the route is not an address, or there is no key to sign with.

        Raises:
            StoreError: The key cannot be used.
        """
        address = self.sign(f"{folder}/0", seconds, route)
        if not address:
            return {}
        names = [*map(manifest_name, range(machines)), CHECKPOINTS, *map(str, range(_BLOBS))]
        key = secrets.token_hex(32)
        with self._errors():
            signed = self._signatures(folder, names, seconds)
        queries = {query for query, _ in signed.values()}
        return {
            "url": address.partition("?")[0].removesuffix("0"),
            "query": queries.pop(),
            "blobs": seal({name: signature for name, (_, signature) in signed.items()}, key),
            "fields": {"sealing-key": key},
        }

    @property
    def _fs(self) -> Any:
        fs = super()._fs
        # The client's own are 32 and 64 MiB, each in memory.
        fs.service_client._config.max_single_put_size = fs.service_client._config.max_single_get_size = PIECE
        return fs

    def _signatures(self, folder: str, names: list[str], seconds: float) -> dict[str, tuple[str, str]]:
        """Returns what is signed, and the signature, by the names of blobs."""
        from urllib.parse import unquote

        from azure.core.utils import parse_connection_string
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        fs, account = self._fs, (self._options.get("account_name"), self._options.get("account_key"))
        if fs.connection_string:
            given = parse_connection_string(fs.connection_string)
            account = given.get("accountname"), given.get("accountkey")
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        found = {}
        for name in names:
            container, key = self.key(f"{folder}/{name}")
            token = generate_blob_sas(
                str(account[0]), container, key, account_key=account[1], expiry=until,
                permission=BlobSasPermissions(create=True, write=True),
            )  # fmt: skip
            query, _, signature = token.partition("&sig=")
            found[name] = query, unquote(signature)
        return found

    def copy(self, source: str, target: str, tag: str) -> None:
        """See :meth:`.ReadingPlace.copy`."""
        from fsspec.asyn import sync

        with self._errors():
            fs = self._fs
            status = sync(fs.loop, self._copy, fs.service_client, source, target, tag)
        if status != "success":
            raise StoreError(f"the store {self.where} cannot copy {source}: the copy was {status}")

    async def _copy(self, service: Any, source: str, target: str, tag: str) -> str:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceNotFoundError

        async with (
            service.get_blob_client(*self.key(source)) as one,
            service.get_blob_client(*self.key(target)) as other,
        ):
            try:
                started = await other.start_copy_from_url(
                    one.url, source_etag=tag, source_match_condition=MatchConditions.IfNotModified
                )
            except ResourceNotFoundError:
                raise self.missing(source) from None
            status = str(started["copy_status"])
            while status == "pending":
                await asyncio.sleep(_PAUSE)
                status = str((await other.get_blob_properties()).copy.status)
        return status
