"""Hands the trace of a task on to its job, as W3C's trace context has it."""

from __future__ import annotations

import os


def trace_env() -> dict[str, str]:
    """Returns ``TRACEPARENT`` and ``TRACESTATE`` of the current span; nothing where Airflow traces nothing."""
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name.upper(): text for name, text in carrier.items()}


def inherited_trace() -> dict[str, str]:
    """Returns ``TRACEPARENT`` and ``TRACESTATE`` of this process's environment: a pipeline that traces sets them."""
    return {name: os.environ[name] for name in ("TRACEPARENT", "TRACESTATE") if os.environ.get(name)}
