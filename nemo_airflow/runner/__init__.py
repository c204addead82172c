"""What runs inside a job, and what user code may import there. Standard library only, Python >= 3.9.

User code reports with :func:`log_metric`, :func:`log_metrics`, :func:`log_artifact`, :func:`log_input`,
:func:`log_model`, :func:`set_tag` and :func:`output_dir`; outside a job these do nothing, so that the same code runs
anywhere. :func:`artifact` makes a file or folder a value that is returned and given to another job. What
:func:`save_checkpoint` keeps, the next attempt finds with :func:`latest_checkpoint`.
"""

__all__ = [
    "Artifact",
    "Checkpoint",
    "Preempted",
    "artifact",
    "checkpoint_dir",
    "fetch_outputs",
    "in_job",
    "latest_checkpoint",
    "log_artifact",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "on_preempt",
    "output_dir",
    "save_checkpoint",
    "set_tag",
    "should_stop",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nemo_airflow.language.artifact import Artifact
    from nemo_airflow.runner.artifacts import artifact
    from nemo_airflow.runner.checkpoints import Checkpoint
    from nemo_airflow.runner.datasets import log_input
    from nemo_airflow.runner.earlier import fetch_outputs
    from nemo_airflow.runner.models import log_model
    from nemo_airflow.runner.preemption import Preempted, on_preempt, should_stop
    from nemo_airflow.runner.report import in_job, log_artifact, log_metric, log_metrics, output_dir, set_tag
    from nemo_airflow.runner.resuming import checkpoint_dir, latest_checkpoint, save_checkpoint


_ELSEWHERE = {
    "Artifact": "artifacts",
    "Checkpoint": "checkpoints",
    "Preempted": "preemption",
    "artifact": "artifacts",
    "checkpoint_dir": "resuming",
    "fetch_outputs": "earlier",
    "latest_checkpoint": "resuming",
    "log_input": "datasets",
    "log_model": "models",
    "on_preempt": "preemption",
    "save_checkpoint": "resuming",
    "should_stop": "preemption",
}
"""Modules of the names that are not in ``report``, which most jobs need alone."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'report')}"), name)
