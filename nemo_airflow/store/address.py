"""Opens a store by its address, with the credentials of an Airflow connection.

/mnt/shared/nemo, file:///mnt/shared/nemo      a folder
ssh://conn_id/path/from/root, ssh://conn_id/~/path
s3://conn_id@bucket/prefix                     conn_id of type aws; without it the environment's own credentials
gs://conn_id@bucket/prefix                     of type google_cloud_platform
abfs://conn_id@container/prefix, abfss://...   of type wasb or adls
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from nemo_airflow import settings
from nemo_airflow.connections import ConnectionInfo, find_secrets, get_connection
from nemo_airflow.exceptions import SettingsError, StoreError
from nemo_airflow.job import PATCH, Archive, Package
from nemo_airflow.store.local import PackageStore
from nemo_airflow.store.place import Place
from nemo_airflow.store.shared import SharedStore

_FORMS = "a folder, ssh://conn_id/path, s3://, gs:// or abfs://[conn_id@]bucket/prefix"


def open_store(url: str) -> SharedStore:
    """Returns the store at an address. Connects only when used. May block to read the Airflow connection.

    Raises:
        SettingsError: The address is not valid, contains a password, or names a connection that cannot be read.
    """
    return SharedStore(_place(url))


def configured_store() -> SharedStore | None:
    """Returns the store of ``$NEMO_AIRFLOW_STORE``, or None where that is empty."""
    url = settings.store_url()
    return open_store(url) if url else None


def open_bucket(url: str) -> Place:
    """Returns a bucket at ``s3://[conn_id@]bucket``, also ``gs://`` and ``abfs://``, without anything of a store in it.

    Raises:
        SettingsError: As for :func:`open_store`.
    """
    return _place(url)


def publish(package: Package) -> None:
    """Puts a package of this machine's cache into the configured store, if there is one and it does not have it.

    A patch with a secret that Airflow knows stays on this machine: it also has the lines that were removed.
    """
    store = configured_store()
    if store is not None:
        cache = PackageStore(settings.packages_folder())
        for archive in package.archives:
            store.put_package(archive, cache.path(archive.digest, archive.format))
        if (name := package.stored_patch) and not package.keeps_patch_apart:
            path = cache.path(name, PATCH)
            if find_secrets(path.read_bytes().decode("utf-8", "surrogateescape")):
                return
            store.put_package(Archive(name, PATCH, path.stat().st_size, path.name), path)


def read_patch(package: Package) -> bytes | None:
    """Returns a package's patch at any size, from this machine or the configured store; None where neither has it."""
    if not package.stored_patch:
        return package.patch.encode("utf-8", "surrogateescape")
    cache = PackageStore(settings.packages_folder())
    path = cache.path(package.stored_patch, PATCH)
    store = None if path.exists() else configured_store()
    try:
        if store is not None:
            store.get_package(Archive(package.stored_patch, PATCH, 0, path.name), cache)
        return path.read_bytes()
    except (FileNotFoundError, StoreError):
        return None


def _place(url: str) -> Place:
    from nemo_airflow.store.azure import AzurePlace
    from nemo_airflow.store.buckets import EXTRAS, ObjectPlace
    from nemo_airflow.store.folder import FolderPlace
    from nemo_airflow.store.google import GooglePlace
    from nemo_airflow.store.s3 import S3Place

    parts = urlsplit(url)
    if not parts.scheme and url:
        return FolderPlace(Path(url).expanduser().absolute())
    conn_id, _, host = parts.netloc.rpartition("@")
    if ":" in conn_id or parts.query:
        raise SettingsError(f"the address of a {parts.scheme}:// store holds credentials: put them into a connection")
    path = unquote(parts.path)
    if parts.scheme == "file" and path.strip("/"):
        if parts.netloc not in ("", "localhost"):
            raise SettingsError(
                f"{url!r} names a host, {parts.netloc!r}, which file:// cannot reach: "
                f"for a folder of this machine write file:///{parts.netloc}{parts.path}, for one of a host ssh://conn_id/path"
            )
        return FolderPlace(Path(path))
    if parts.scheme == "ssh" and host and path.strip("/"):
        from nemo_airflow.store.ssh import SSHPlace

        return SSHPlace(host, path.removeprefix("/") if path.startswith("/~/") else path)
    if parts.scheme in EXTRAS and host:
        options = _options(parts.scheme, get_connection(conn_id)) if conn_id else {}
        kinds: dict[str, type[ObjectPlace]] = {"s3": S3Place, "gcs": GooglePlace, "azure": AzurePlace}
        return kinds[EXTRAS[parts.scheme]](parts.scheme, f"{host}{path}", options, url)
    raise SettingsError(f"{url!r} is not the address of a store: give {_FORMS}")


def _options(scheme: str, info: ConnectionInfo) -> dict[str, Any]:
    options = {"s3": _s3, "gs": _gcs, "gcs": _gcs}.get(scheme, _azure)(info)
    return {name: value for name, value in options.items() if value not in (None, "", {})}


def _s3(info: ConnectionInfo) -> dict[str, Any]:
    extra = info.extra
    return {
        "key": info.login or extra.get("aws_access_key_id"),
        "secret": info.password or extra.get("aws_secret_access_key"),
        "token": extra.get("aws_session_token"),
        "profile": extra.get("profile_name"),
        "endpoint_url": extra.get("endpoint_url")
        or (extra.get("service_config") or {}).get("s3", {}).get("endpoint_url"),
        "client_kwargs": {"region_name": extra["region_name"]} if extra.get("region_name") else {},
        "config_kwargs": extra.get("config_kwargs"),
    }


def _gcs(info: ConnectionInfo) -> dict[str, Any]:
    extra = info.extra
    keys = extra.get("keyfile_dict")
    token = json.loads(keys) if isinstance(keys, str) and keys else keys
    return {
        "token": token or extra.get("key_path") or ("anon" if extra.get("is_anonymous") else None),
        "project": extra.get("project"),
        "endpoint_url": extra.get("endpoint_url"),
    }


def _azure(info: ConnectionInfo) -> dict[str, Any]:
    extra = info.extra
    by_client = extra.get("tenant_id")
    return {
        "connection_string": extra.get("connection_string"),
        "account_name": extra.get("account_name") or (None if by_client else info.login),
        "account_key": extra.get("account_key") or (None if by_client else info.password),
        "sas_token": extra.get("sas_token"),
        "account_host": extra.get("account_host"),
        "tenant_id": by_client,
        "client_id": extra.get("client_id") or (info.login if by_client else None),
        "client_secret": extra.get("client_secret") or (info.password if by_client else None),
    }
