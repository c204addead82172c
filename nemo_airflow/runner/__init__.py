"""What runs inside a job, and what user code may import there. Standard library only, Python >= 3.9.

User code reports with :func:`log_metric`, :func:`log_metrics`, :func:`log_artifact`, :func:`log_input`,
:func:`log_model`, :func:`set_tag` and :func:`output_dir`; outside a job these do nothing, so that the same code runs
anywhere. :func:`artifact` makes a file or folder a value that is returned and given to another job.
"""

__all__ = [
    "Artifact",
    "artifact",
    "fetch_outputs",
    "in_job",
    "log_artifact",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "output_dir",
    "set_tag",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nemo_airflow.language.artifact import Artifact
    from nemo_airflow.runner.artifacts import artifact
    from nemo_airflow.runner.datasets import log_input
    from nemo_airflow.runner.earlier import fetch_outputs
    from nemo_airflow.runner.models import log_model
    from nemo_airflow.runner.report import in_job, log_artifact, log_metric, log_metrics, output_dir, set_tag


_ELSEWHERE = {
    "Artifact": "artifacts",
    "artifact": "artifacts",
    "fetch_outputs": "earlier",
    "log_input": "datasets",
    "log_model": "models",
}
"""Modules of the names that are not in ``report``, which most jobs need alone."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'report')}"), name)
