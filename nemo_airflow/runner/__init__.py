"""What runs inside a job, and what user code may import there. Standard library only, Python >= 3.9.

User code reports with :func:`log_metric`, :func:`log_metrics`, :func:`log_artifact`, :func:`set_tag` and
:func:`output_dir`; outside a job these do nothing, so that the same code runs anywhere.
"""

__all__ = ["in_job", "log_artifact", "log_metric", "log_metrics", "output_dir", "set_tag"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nemo_airflow.runner.report import in_job, log_artifact, log_metric, log_metrics, output_dir, set_tag


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nemo_airflow.runner import report

    return getattr(report, name)
