"""What one job of an experiment is made of: as it was added, or as it was recorded."""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Literal

from nemo_airflow import settings
from nemo_airflow.config import plan as plans
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.config.views.outline import is_plan
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.experiment.records import RecordedExperiment, RecordedTask
from nemo_airflow.job import Package
from nemo_airflow.language.names import target_name
from nemo_airflow.launch.code import packager_of
from nemo_airflow.launch.records import Records
from nemo_airflow.launch.submission import Launch, Options
from nemo_airflow.packaging.archive import ZSTD
from nemo_airflow.packaging.base import Packager
from nemo_airflow.reproduction.packages import RecordedPackager
from nemo_airflow.reproduction.restoring import refuse_masked, reproduction_tags
from nemo_airflow.runner import script
from nemo_airflow.runner.masking import MASK
from nemo_airflow.store import PackageStore
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.registry import tracker_from_json

EXPERIMENT_ID = "nemo_airflow.experiment_id"
"""Tag of the runs of an experiment."""

Auto = Literal["auto"]


@dataclasses.dataclass
class Task:
    """What one job runs.

    Attributes:
        name: Its name in the experiment.
        config: The config, or a plan as it was recorded.
        executor: Where it runs.
        packager: What ships its code; ``"auto"`` for the git repository of its folder, if it is in one.
        folder: Where its code is.
        allow: What it may import besides the targets of its config.
        outputs: Patterns of files to keep.
        description: What it does, for people; what its function's docstring says when empty.
        reproduces: Key of the job that it runs again, or empty.
        recorded: Digest of the config with which that ran, or empty.
    """

    name: str
    config: Any
    executor: Executor
    packager: Packager | Auto | None
    folder: Path
    allow: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    description: str = ""
    reproduces: str = ""
    recorded: str = ""

    def shipped_by(self) -> Packager | None:
        """Returns what ships its code.

        Raises:
            PackagingError: Nothing could, and the job does not see its folder.
        """
        return packager_of(self.folder, self.executor) if isinstance(self.packager, str) else self.packager

    def launch(self, title: str, experiment_id: str, tracker: Tracker | None, say: Callable[[str], None]) -> Launch:
        """Returns its launch, whose config is checked.

        Args:
            title: The title of the experiment: its name in the tracker.
            experiment_id: Its id.
            tracker: What remembers the run, or None.
            say: Called with what people should know, in one line.

        Raises:
            ConfigError: The config is wrong.
        """
        options = Options(
            name=self.name,
            packager=self.shipped_by(),
            tracker=tracker,
            experiment=title,
            outputs=self.outputs,
            folder=self.folder,
            allow=self.allow,
            description=self.description,
        )
        if isinstance(tracker, MLflowTracker):
            tags = {EXPERIMENT_ID: experiment_id, **self._tags_of_reproduction()}
            options = dataclasses.replace(options, tracker=dataclasses.replace(tracker, tags={**tracker.tags, **tags}))
        return Launch(self.config, self.executor, options, say)

    def _tags_of_reproduction(self) -> dict[str, str]:
        launched = Records().get(self.reproduces) if self.reproduces else None
        run = launched.tracked if launched is not None else None
        if run is None or run.ref is None:
            return {}
        is_same = is_plan(self.config) and plans.digest(self.config) == self.recorded
        return reproduction_tags(run.ref.run_id, [] if is_same else ["config"])

    def readable(self) -> Any:
        """Returns its config, which may be changed; a plan is read as the recorded code has it.

        Raises:
            ConfigError: The code does not take it.
            PackagingError: The recorded code is gone.
        """
        if is_plan(self.config):
            allow = (*self.allow, *plans.targets(self.config))
            if isinstance(self.packager, RecordedPackager):
                with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
                    self.packager.unpack(PackageStore(settings.packages_folder()), Path(scratch))
                    self.config = plans.from_plan(self.config, allow, scratch)
            else:
                self.config = plans.from_plan(self.config, allow, self.folder)
        return self.config


def recorded_task(record: RecordedExperiment, task: RecordedTask) -> Task:
    """Returns a task as it was recorded: its plan, its package, its executor.

    Raises:
        ConfigError: Its config is not kept any more, or held a secret.
        ExecutorError: Its executor is not installed any more.
    """
    plan = ConfigVersions().load(task.config)
    whose = f"job {task.name} of experiment {record.id}"
    refuse_masked(plan, whose)
    refuse_masked_variables(task.executor.get("env") or {}, whose)
    return Task(
        task.name,
        plan,
        executor_from_json(task.executor),
        recorded_packager(record, task),
        Path(task.folder),
        task.allow,
        task.outputs,
        task.description,
        task.reproduces,
        task.config,
    )


def recorded_packager(record: RecordedExperiment, task: RecordedTask) -> RecordedPackager | None:
    """Returns what ships the very package of a task; None for one that shipped none."""
    if not task.package:
        return None
    package = Package.from_json(record.packages[task.package])
    return RecordedPackager(
        run_id=record.id, recorded=package, repositories=(task.folder,), reads_zstd=package.format == ZSTD
    )


def recorded_tracker(record: RecordedExperiment) -> Tracker | None:
    """Returns the tracker of an experiment, or None.

    Raises:
        TrackingError: It is not installed any more.
    """
    return tracker_from_json(record.tracker) if record.tracker else None


def refuse_masked_variables(env: Any, whose: str) -> None:
    """Refuses variables that held secrets, which nobody records.

    Raises:
        ConfigError: There is one.
    """
    if masked := sorted(name for name, value in env.items() if MASK in str(value)):
        raise ConfigError(
            f"the executor of {whose} held a secret in {', '.join(masked)}, which is not recorded: name it instead, "
            "as in secrets={...}"
        )


def default_name(config: Any) -> str:
    """Returns how a job is called that nobody has named: as its function, or as its script's file."""
    function = config.__fn_or_cls__
    name = target_name(function).replace(":", ".")
    if function is script.run:
        path = config.__arguments__.get("path")
        name = PurePath(path).stem if path else "script"
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).lstrip("_.-") or "job"
