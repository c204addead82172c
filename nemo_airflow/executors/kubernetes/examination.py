"""Examines a cluster: whether our account may do what the driver does, as the API server itself says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_airflow.executors.finding import Finding, bad, doubtful, good

if TYPE_CHECKING:
    from nemo_airflow.executors.kubernetes.cluster import Cluster

RIGHTS = (
    ("pods", "", ("create", "get", "list", "watch", "patch", "delete")),
    ("pods", "log", ("get",)),
    ("pods", "exec", ("get", "create")),
    ("secrets", "", ("create", "get", "list", "patch", "delete")),
)
"""Resource, subresource and verbs that the driver needs in its namespace."""

WISHES = (("events", "", ("list",)),)
"""What it does without, and says less."""

_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


async def examine_cluster(cluster: Cluster) -> list[Finding]:
    """Returns what our account may do in a namespace.

    Raises:
        BackendUnavailable: The API server cannot be reached, or does not know our credentials.
    """
    version = await cluster.request("GET", "/version", "ask for its version")
    findings = [good("reached", f"Kubernetes {version.get('gitVersion')} at {cluster.name}")]
    denied = [right for right in _each(RIGHTS) if not await _may(cluster, *right)]
    if denied:
        said = ", ".join(_name(*right) for right in denied)
        findings.append(
            bad(
                "rights",
                f"this account may not {said} in {cluster.namespace}",
                "a Role with them: docs/backends/kubernetes.md",
            )
        )
    else:
        findings.append(good("rights", f"all that is needed in {cluster.namespace}"))
    for right in _each(WISHES):
        if not await _may(cluster, *right):
            said = f"this account may not {_name(*right)}: some reasons for which a pod waits are not told"
            findings.append(doubtful("events", said, "give its Role the verb list on events"))
    return findings


def _each(rights: tuple[tuple[str, str, tuple[str, ...]], ...]) -> list[tuple[str, str, str]]:
    return [(resource, subresource, verb) for resource, subresource, verbs in rights for verb in verbs]


def _name(resource: str, subresource: str, verb: str) -> str:
    return f"{verb} {resource}{f'/{subresource}' if subresource else ''}"


async def _may(cluster: Cluster, resource: str, subresource: str, verb: str) -> bool:
    attributes = {"namespace": cluster.namespace, "resource": resource, "subresource": subresource, "verb": verb}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await cluster.request("POST", _REVIEW, "ask for our rights", body=body)
    return bool((answer.get("status") or {}).get("allowed"))
