"""What runs inside a job, and what user code may import there. Standard library only, Python >= 3.9.

User code reports with :func:`log_metric`, :func:`log_metrics`, :func:`log_artifact`, :func:`set_tag` and
:func:`output_dir`; outside a job these do nothing, so that the same code runs anywhere.
"""

_REPORT = ("in_job", "log_artifact", "log_metric", "log_metrics", "output_dir", "set_tag")

__all__ = list(_REPORT)  # noqa: PLE0605 - the names are those above


def __getattr__(name):  # type: ignore[no-untyped-def]
    if name not in _REPORT:
        raise AttributeError("module {!r} has no attribute {!r}".format(__name__, name))
    from nemo_airflow.runner import report

    return getattr(report, name)
