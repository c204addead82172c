"""Plug-ins of experiments, which change tasks and executors before anything is submitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from nemo_airflow.config import Config, build
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor


class ExperimentPlugin:
    """Changes what is added to an experiment; a subclass says how.

    A subclass may be a dataclass. Any object with a method ``setup`` of this form is a plug-in, too.
    """

    def setup(self, task: Any, executor: Any) -> None:
        """Changes a task and its executor in place.

        Args:
            task: A copy of the task's config.
            executor: The config of its executor, with all fields set: ``executor.nodes = 2``,
                ``executor.env["NCCL_DEBUG"] = "INFO"``. What is wrong is refused when all plug-ins have been called.
        """


def set_up(plugins: Sequence[Any], tasks: Sequence[Any], executors: Sequence[Executor]) -> list[Executor]:
    """Has each plug-in change each task, in place, and its executor; returns the executors.

    Raises:
        ConfigError: A plug-in has no ``setup``.
        ExecutorArgumentError: An executor does not take what was set.
    """
    if not plugins:
        return list(executors)
    configs = [_config_of(executor) for executor in executors]
    for plugin in plugins:
        if not callable(getattr(plugin, "setup", None)):
            raise ConfigError(f"plugin {plugin!r} has no setup(task, executor): subclass ExperimentPlugin")
        for task, executor in zip(tasks, configs, strict=True):
            plugin.setup(task, executor)
    return [build(config) for config in configs]


def _config_of(executor: Executor) -> Config[Any]:
    fields: dict[str, Any] = {field.name: getattr(executor, field.name) for field in dataclasses.fields(executor)}
    # Those that people add to have to be their own.
    return Config(type(executor), **{**fields, "env": dict(executor.env), "secrets": dict(executor.secrets)})
