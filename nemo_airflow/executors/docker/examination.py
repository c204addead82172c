"""Examines a Docker daemon for the jobs of an executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nemo_airflow.executors.finding import Finding, bad, doubtful, good

if TYPE_CHECKING:
    from nemo_airflow.executors.docker.api import Docker


def examine_daemon(docker: Docker, image: str, *, pull: str, gpus: int) -> list[Finding]:
    """Returns what a daemon has for a job. Blocks.

    Args:
        docker: The daemon.
        image: The job's image.
        pull: When it is pulled; see :class:`~nemo_airflow.executors.docker.DockerExecutor`.
        gpus: How many GPUs the job has.

    Raises:
        BackendUnavailable: The daemon cannot be reached.
    """
    info = docker.info()
    findings = [good("reached", f"Docker {info.get('ServerVersion')} on {info.get('Name')}, {docker.url}")]
    if docker.image_id(image):
        findings.append(good("image", f"{image} is there"))
    elif pull == "never":
        fix = f"docker pull {image}, or give the executor pull='missing'"
        findings.append(bad("image", f"{image} is not there, and pull='never'", fix))
    else:
        findings.append(
            doubtful("image", f"{image} is not there: the first job waits until it is pulled", f"docker pull {image}")
        )
    if gpus and "nvidia" not in (info.get("Runtimes") or {}):
        fix = "install the NVIDIA Container Toolkit there, then: nvidia-ctk runtime configure --runtime=docker"
        findings.append(bad("GPUs", "the daemon has no nvidia runtime", fix))
    return findings
