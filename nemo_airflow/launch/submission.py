"""Submits a config as a job, once, and remembers it before: a process that is killed leaves nothing unknown behind."""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow import blocking
from nemo_airflow.artifacts.keeping import archives_for
from nemo_airflow.config import plan as plans
from nemo_airflow.config.objects.leaves import iter_leaves
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.config.types.graph import is_deferred
from nemo_airflow.config.views.outline import is_plan
from nemo_airflow.exceptions import (
    AccessRefused,
    BackendUnavailable,
    ConfigError,
    MissingExtraError,
    SettingsError,
    SubmitError,
)
from nemo_airflow.executors.base import Executor, Request
from nemo_airflow.executors.secret import read_secrets, show_secrets
from nemo_airflow.hooks.packaging import PackagingHook
from nemo_airflow.installation import installation_id
from nemo_airflow.job import Job, Package
from nemo_airflow.keys import job_key
from nemo_airflow.launch.records import Launched, RecordedState, Records
from nemo_airflow.launch.said import Said
from nemo_airflow.masking import mark_secrets, masked_executor, masked_plan
from nemo_airflow.operators import attempt as attempts
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.checkpoints import artifact_of, find_checkpoint
from nemo_airflow.operators.equipping import Tracking, equip
from nemo_airflow.operators.preparation import changed_fields, describe, plan_of
from nemo_airflow.operators.tracing import inherited_trace
from nemo_airflow.packaging.base import Packager
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.outputs import load_collector
from nemo_airflow.tracking.run import record_end, status_of_refusal

_CANNOT_BE_ASKED = (BackendUnavailable, AccessRefused, SettingsError, MissingExtraError)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a job is asked for besides its config and its executor.

    Attributes:
        name: Its name, for people, and its experiment where that is empty.
        packager: How the code is shipped, or None.
        tracker: What remembers the run, or None.
        experiment: The tracker's experiment.
        collector: Which outputs the tracker keeps, as ``"pkg.mod:Class"``; empty for all.
        outputs: Patterns of files to keep besides those in the output directory.
        env: Environment variables of the job.
        folder: Where the code is.
        allow: What the job may import besides the targets of its config.
        description: What it does, for people; what its function's docstring says when empty.
        earlier: Keys of the attempts from whose checkpoints it goes on, the newest first.
        run_key: Key of the job whose run in the tracker it continues; empty for a run of its own.
    """

    name: str
    packager: Packager | None = None
    tracker: Tracker | None = None
    experiment: str = ""
    collector: str = ""
    outputs: Sequence[str] = ()
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: Path = dataclasses.field(default_factory=Path.cwd)
    allow: Sequence[str] = ()
    description: str = ""
    earlier: tuple[str, ...] = ()
    run_key: str = ""


class Launch:
    """One launch of a config, which becomes one job.

    Args:
        config: The config, which is checked at once; or a plan, as a run has recorded it.
        executor: Where it runs.
        options: What else is asked for.
        warn: Called with what people should know, in one line.

    Attributes:
        key: The key of the job that it becomes.
        plan: The config as a plan.
        public_plan: The same without secrets.
        digest: The digest of that.
        allow: What the job may import.
        description: What it does, for people.

    Raises:
        ConfigError: The config is wrong.
        ArtifactError: An artifact in it cannot be read.
    """

    def __init__(self, config: Any, executor: Executor, options: Options, warn: Callable[[str], None]) -> None:
        load_collector(options.collector)
        if is_plan(config):
            self.plan, self.allow = config, tuple(dict.fromkeys((*options.allow, *plans.targets(config))))
        else:
            _refuse_templates(config)
            allow = (*options.allow, *plans.targets(plans.to_plan(config, check=False)))
            self.plan, self.allow = plan_of(config, allow)
        self.public_plan = masked_plan(self.plan)
        self.digest = plans.digest(self.public_plan)
        self.description = options.description or ("" if is_plan(config) else describe(config))
        self._executor = executor
        self._options = options
        self._warn = warn
        # Another launch of the same is another job: that is what one asks for who enters a command again.
        identity = {"launch": uuid.uuid4().hex, "installation": installation_id(), "digest": self.digest}
        self.key = job_key(identity, name=options.name, attempt=len(options.earlier) + 1)
        self._back_end = BackEnd(executor, Said(warn).warning)

    def package(self, *, dry: bool = False) -> Package | None:
        """Returns the package of the code, which is in this machine's store then.

        Args:
            dry: Whether no job follows: then the back-end, which may know of a better format, need not answer.

        Raises:
            PackagingError: It cannot be made.
        """
        if self._options.packager is None:
            return None
        reads_zstd = False
        if getattr(self._options.packager, "takes_zstd", False):
            with contextlib.suppress(*_CANNOT_BE_ASKED) if dry else contextlib.nullcontext():
                reads_zstd = self._back_end.reads_zstd()
        hook = PackagingHook(self._options.packager, reads_zstd=reads_zstd, log=Said(self._warn))
        return hook.package_folder(self._options.folder)

    def request(self, package: Package | None) -> Request:
        """Returns what would be sent to the back-end, with an example of a key."""
        return self._back_end.render(self._job(package))

    def foresee(self, request: Request) -> str:
        """Returns what the back-end says of the request, which is not submitted: when it would start; or nothing.

        A back-end that cannot be asked keeps nobody from seeing the request: then the reason is returned.
        """
        try:
            return self._back_end.foresee(request)
        except _CANNOT_BE_ASKED as error:
            return f"the {request.kind} back-end cannot be asked now: {error}"

    def submit(self, records: Records, package: Package | None) -> Launched:
        """Submits the job, and returns its record.

        Raises:
            SubmitError: The back-end refuses it, or a secret is not there.
            BackendUnavailable: The back-end is away.
            SettingsError: It cannot be remembered here, so it was not submitted.
        """
        options, public = self._options, masked_executor(self._executor)
        values = read_secrets(self._executor.secrets)
        ConfigVersions().save(self.public_plan)
        job = self._job(package, find_checkpoint(self._back_end, options.earlier, self._warn))
        equipped = equip(job, self._executor, values, self._tracking, env=options.env, warn=self._warn)
        run = equipped.run.to_json() if equipped.run else None
        record = Launched(self.key, options.name, public, self.digest, time.time(), run=run)
        records.save(record)
        where = json.dumps(changed_fields(self._executor), sort_keys=True)
        digest = hashlib.sha256(f"{self.digest}\n{where}".encode()).hexdigest()
        attempts.remember(
            RecordedState(records, self.key), attempts.Attempt(1, self.key, digest, max_tries=0, executor=public)
        )
        try:
            handle = self._back_end.submit(equipped.request(Said(self._warn).warning, waits=True))
        except SubmitError as error:
            if equipped.run is not None:
                blocking.run(record_end(equipped.run, status_of_refusal(error), self._warn))
            raise
        submitted = equipped.submitted_run(handle)
        return records.change(self.key, handle=handle.to_json(), run=submitted.to_json() if submitted else None)

    @property
    def _tracking(self) -> Tracking | None:
        options = self._options
        if options.tracker is None:
            return None
        return Tracking(options.tracker, options.experiment or options.name, options.collector)

    def _job(self, package: Package | None, checkpoint: Mapping[str, Any] | None = None) -> Job:
        code = {"PYTHONPATH": str(self._options.folder)} if package is None and self._executor.shares_filesystem else {}
        job = Job(
            key=self.key,
            name=self._options.name,
            plan=self.plan,
            allow=self.allow,
            package=package,
            inputs=archives_for(self.plan, also=artifact_of(checkpoint)),
            env={**inherited_trace(), **self._executor.env, **code, **self._options.env},
            secret_env=show_secrets(self._executor.secrets),
            time_limit=self._executor.time_limit,
            outputs=tuple(self._options.outputs),
            description=self.description,
            asked={"executor": masked_executor(self._executor), "collector": self._options.collector},
            labels={"installation": installation_id(), "user": getpass.getuser()},
            earlier=self._options.earlier,
            run_key=self._options.run_key,
            checkpoint=checkpoint,
        )
        return mark_secrets(job)


def _refuse_templates(config: Any) -> None:
    for path, leaf in iter_leaves(config):
        if is_deferred(leaf):
            what = f"the template {leaf!r}" if isinstance(leaf, str) else "the output of another task"
            raise ConfigError(f"is {what}, which only the run of a DAG has: give a value, such as {path}=...", path)
