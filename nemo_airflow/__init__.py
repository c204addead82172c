"""Run machine-learning experiments from Apache Airflow: configure once, run anywhere, keep everything.

The public names below are loaded when they are first used: importing this package imports
neither Airflow, nor Fiddle, nor any client library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Config": "nemo_airflow.config",
    "Partial": "nemo_airflow.config",
    "Recipe": "nemo_airflow.config",
    "Script": "nemo_airflow.config",
    "autoconvert": "nemo_airflow.config",
    "compose": "nemo_airflow.config",
    "params_from": "nemo_airflow.operators",
    "Executor": "nemo_airflow.executors",
    "LocalExecutor": "nemo_airflow.executors",
    "DockerExecutor": "nemo_airflow.executors",
    "KubernetesExecutor": "nemo_airflow.executors",
    "Processes": "nemo_airflow.executors",
    "GridEngineExecutor": "nemo_airflow.executors",
    "PBSExecutor": "nemo_airflow.executors",
    "RayExecutor": "nemo_airflow.executors",
    "SSHExecutor": "nemo_airflow.executors",
    "ScriptTemplate": "nemo_airflow.executors",
    "Secret": "nemo_airflow.executors",
    "SkypilotExecutor": "nemo_airflow.executors",
    "SlurmExecutor": "nemo_airflow.executors",
    "Torchrun": "nemo_airflow.executors",
    "DistributionPackager": "nemo_airflow.packaging",
    "GitArchivePackager": "nemo_airflow.packaging",
    "HybridPackager": "nemo_airflow.packaging",
    "Packager": "nemo_airflow.packaging",
    "PatternPackager": "nemo_airflow.packaging",
    "MLflowTracker": "nemo_airflow.tracking",
    "Tracker": "nemo_airflow.tracking",
    "runs": "nemo_airflow.tracking",
    "NemoReproduceOperator": "nemo_airflow.operators",
    "NemoRunOperator": "nemo_airflow.operators",
    "reproduce": "nemo_airflow.launch.reproducing",
    "Experiment": "nemo_airflow.experiment",
    "ExperimentPlugin": "nemo_airflow.experiment",
    "run": "nemo_airflow.experiment",
    "resume": "nemo_airflow.launch.resuming",
    "Artifact": "nemo_airflow.runner",
    "Preempted": "nemo_airflow.runner",
    "artifact": "nemo_airflow.runner",
    "checkpoint_dir": "nemo_airflow.runner",
    "fetch_outputs": "nemo_airflow.runner",
    "latest_checkpoint": "nemo_airflow.runner",
    "log_artifact": "nemo_airflow.runner",
    "log_input": "nemo_airflow.runner",
    "log_metric": "nemo_airflow.runner",
    "log_metrics": "nemo_airflow.runner",
    "log_model": "nemo_airflow.runner",
    "on_preempt": "nemo_airflow.runner",
    "output_dir": "nemo_airflow.runner",
    "save_checkpoint": "nemo_airflow.runner",
    "should_stop": "nemo_airflow.runner",
}

_IN_A_JOB = {
    "Config": "nemo_airflow.language.configs",
    "Partial": "nemo_airflow.language.configs",
    "autoconvert": "nemo_airflow.language.recipes.autoconvert",
}
"""Names for writing recipes, where only the runner is available."""

__all__ = [
    "Artifact",
    "Config",
    "DistributionPackager",
    "DockerExecutor",
    "Executor",
    "Experiment",
    "ExperimentPlugin",
    "GitArchivePackager",
    "GridEngineExecutor",
    "HybridPackager",
    "KubernetesExecutor",
    "LocalExecutor",
    "MLflowTracker",
    "NemoReproduceOperator",
    "NemoRunOperator",
    "PBSExecutor",
    "Packager",
    "Partial",
    "PatternPackager",
    "Preempted",
    "Processes",
    "RayExecutor",
    "Recipe",
    "SSHExecutor",
    "Script",
    "ScriptTemplate",
    "Secret",
    "SkypilotExecutor",
    "SlurmExecutor",
    "Torchrun",
    "Tracker",
    "__version__",
    "artifact",
    "autoconvert",
    "checkpoint_dir",
    "compose",
    "fetch_outputs",
    "latest_checkpoint",
    "log_artifact",
    "log_input",
    "log_metric",
    "log_metrics",
    "log_model",
    "on_preempt",
    "output_dir",
    "params_from",
    "reproduce",
    "resume",
    "run",
    "runs",
    "save_checkpoint",
    "should_stop",
]

if TYPE_CHECKING:
    from nemo_airflow.config import Config, Partial, Recipe, Script, autoconvert, compose
    from nemo_airflow.executors import (
        DockerExecutor,
        Executor,
        GridEngineExecutor,
        KubernetesExecutor,
        LocalExecutor,
        PBSExecutor,
        Processes,
        RayExecutor,
        ScriptTemplate,
        Secret,
        SkypilotExecutor,
        SlurmExecutor,
        SSHExecutor,
        Torchrun,
    )
    from nemo_airflow.experiment import Experiment, ExperimentPlugin, run
    from nemo_airflow.launch.reproducing import reproduce
    from nemo_airflow.launch.resuming import resume
    from nemo_airflow.operators import NemoReproduceOperator, NemoRunOperator, params_from
    from nemo_airflow.packaging import (
        DistributionPackager,
        GitArchivePackager,
        HybridPackager,
        Packager,
        PatternPackager,
    )
    from nemo_airflow.runner import (
        Artifact,
        Preempted,
        artifact,
        checkpoint_dir,
        fetch_outputs,
        latest_checkpoint,
        log_artifact,
        log_input,
        log_metric,
        log_metrics,
        log_model,
        on_preempt,
        output_dir,
        save_checkpoint,
        should_stop,
    )
    from nemo_airflow.tracking import MLflowTracker, Tracker


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(_EXPORTS[name])
    except ModuleNotFoundError as error:
        if name not in _IN_A_JOB or error.name != _EXPORTS[name]:
            raise
        module = importlib.import_module(_IN_A_JOB[name])
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
