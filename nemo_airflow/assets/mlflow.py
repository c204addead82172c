"""Assets ``mlflow://models/NAME``, ``mlflow://models/NAME@ALIAS``, ``mlflow://models/NAME/VERSION``, ``mlflow://runs/ID``.

An asset is of the MLflow that an installation of Airflow tracks in: no server is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote

if TYPE_CHECKING:
    from airflow.sdk import Asset

SCHEME = "mlflow"
_FORMS = "mlflow://models/NAME, mlflow://models/NAME@ALIAS, mlflow://models/NAME/VERSION or mlflow://runs/RUN_ID"


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Returns the one form of an address: Airflow compares assets by it.

    Raises:
        ValueError: It is not one of the forms above.
    """
    kind = uri.netloc.lower()
    parts = [quote(unquote(part), safe="@:+") for part in uri.path.split("/") if part]
    if kind == "models":
        fits = len(parts) == 1 or (len(parts) == 2 and parts[1].isdecimal() and "@" not in parts[0])
        fits = fits and bool(parts[0].partition("@")[0]) and parts[0].count("@") <= 1 and not parts[0].endswith("@")
    else:
        fits = kind == "runs" and bool(parts)
    if not fits or uri.query or uri.fragment:
        raise ValueError(f"{uri.geturl()!r} is not the address of a model or run in MLflow: give {_FORMS}")
    return uri._replace(scheme=SCHEME, netloc=kind, path="/" + "/".join(parts))


def model_asset(
    name: str, *, alias: str = "", version: int | None = None, extra: dict[str, Any] | None = None
) -> Asset:
    """Returns a registered model as an asset: a task's outlet, or what a DAG waits for.

    Args:
        name: The model's name in the registry.
        alias: Only the version with this alias, such as ``champion``.
        version: Only this version.
        extra: Of the asset, for Airflow's page.

    Raises:
        ValueError: Both an alias and a version are given, or a name or alias has an ``@``.
    """
    from airflow.sdk import Asset

    if alias and version is not None:
        raise ValueError("a model's asset has an alias or a version, not both")
    if "@" in name or "@" in alias:
        raise ValueError(f"the name {name!r} or alias {alias!r} of a model has an '@', which an asset cannot have")
    which = f"@{alias}" if alias else f"/{version}" if version is not None else ""
    return Asset(uri=f"{SCHEME}://models/{quote(name, safe='')}{which}", extra=extra or {})


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Any:
    """Returns the asset as a dataset of OpenLineage."""
    from openlineage.client.event_v2 import Dataset

    return Dataset(namespace=SCHEME, name=asset.uri.removeprefix(f"{SCHEME}://"))
