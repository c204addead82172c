"""How a cluster is reached: from an Airflow connection, a kubeconfig file, or the pod that we are in."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from nemo_airflow import connections
from nemo_airflow.exceptions import MissingExtraError, SettingsError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import Configuration

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclasses.dataclass(frozen=True)
class Access:
    """What an executor says of its cluster; see :class:`~nemo_airflow.executors.kubernetes.KubernetesExecutor`."""

    conn_id: str | None = None
    config_file: str | None = None
    context: str | None = None
    in_cluster: bool | None = None
    namespace: str | None = None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        if self.conn_id:
            return f"connection {self.conn_id!r}"
        if self.in_cluster or (self.in_cluster is None and not self.config_file and _in_a_pod()):
            return "the service account of this pod"
        return f"the kubeconfig {self.config_file or _default_files()}"

    async def load(self) -> tuple[Configuration, str]:
        """Returns the client's configuration, with fresh credentials, and the namespace.

        Raises:
            SettingsError: Something of it is missing, or cannot be read.
            MissingExtraError: The client is not installed.
        """
        # Two seconds, the first time: not on the event loop.
        client = await asyncio.to_thread(_import, "kubernetes_asyncio.client")
        config = await asyncio.to_thread(_import, "kubernetes_asyncio.config")
        configuration = client.Configuration()
        extra = await self._extra()
        try:
            namespace = await self._fill(config, configuration, extra)
        except (config.ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
            # Not the text of a parser's error: it may quote the credentials.
            detail = f": {error}" if isinstance(error, (config.ConfigException, OSError)) else ""
            raise SettingsError(f"{self.name} cannot be read ({type(error).__name__}){detail}") from None
        if _flag(extra.get("disable_verify_ssl")):
            configuration.verify_ssl = False
        return configuration, self.namespace or extra.get("namespace") or namespace or "default"

    async def _extra(self) -> Mapping[str, Any]:
        """Returns the fields of the connection, in Airflow's present or former spelling, empty ones left out."""
        if self.conn_id is None:
            return {}
        connection = await connections.aget_connection(self.conn_id)
        fields = {name.removeprefix("extra__kubernetes__"): value for name, value in connection.extra.items()}
        return {name: value for name, value in fields.items() if value not in (None, "")}

    async def _fill(self, config: Any, configuration: Configuration, extra: Mapping[str, Any]) -> str:
        """Fills the configuration, and returns the namespace that goes with it."""
        in_cluster = self.in_cluster if self.in_cluster is not None else _flag(extra.get("in_cluster"))
        file = self.config_file or extra.get("kube_config_path")
        inline = extra.get("kube_config")
        if sum(map(bool, (in_cluster, file, inline))) > 1:
            raise config.ConfigException("only one of in_cluster, kube_config_path and kube_config can be given")
        context = self.context or extra.get("cluster_context")
        if inline:
            data = yaml.safe_load(inline) if isinstance(inline, str) else json.loads(json.dumps(inline))
            await config.load_kube_config_from_dict(data, context=context, client_configuration=configuration)
            return _namespace_of(data, context)
        if in_cluster or (in_cluster is None and not file and not context and _in_a_pod()):
            config.load_incluster_config(client_configuration=configuration)
            return await asyncio.to_thread((_SERVICE_ACCOUNT / "namespace").read_text)
        files = file or _default_files()
        if not await asyncio.to_thread(_any_file, files):
            raise config.ConfigException(f"there is no such file: {files}")
        loader = await config.load_kube_config(files, context=context, client_configuration=configuration)
        return str((loader.current_context or {}).get("context", {}).get("namespace") or "")


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError("KubernetesExecutor", "kubernetes") from error


def _in_a_pod() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and (_SERVICE_ACCOUNT / "token").exists()


def _default_files() -> str:
    # Asked now: the client's own default is what the variable was when it was imported.
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def _any_file(files: str) -> bool:
    return any(Path(name).expanduser().is_file() for name in files.split(os.pathsep) if name)


def _namespace_of(data: Mapping[str, Any], context: str | None) -> str:
    name = context or data["current-context"]
    return next((str(c["context"].get("namespace") or "") for c in data["contexts"] if c["name"] == name), "")


def _flag(value: Any) -> bool | None:
    """Reads a flag that Airflow's form may have kept as text."""
    if value is None or isinstance(value, bool):
        return value
    return str(value).strip().lower() in ("1", "true", "yes", "t", "y")
