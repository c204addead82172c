"""Makes of a recorded run what is to run again, and tells before it runs what of it cannot be restored."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow import blocking, settings
from nemo_airflow.artifacts.keeping import bring_here
from nemo_airflow.config import plan as plans
from nemo_airflow.config.changes.overrides import change
from nemo_airflow.config.objects.origins import Origin
from nemo_airflow.config.source.modules import packages_in
from nemo_airflow.exceptions import ConfigError, ExecutorError, PackagingError, TrackingError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.local import LocalExecutor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.hooks.mlflow import MLflowHook
from nemo_airflow.installation import installation_id
from nemo_airflow.jobs.service import JobService
from nemo_airflow.language.plan.contents import check
from nemo_airflow.language.plan.grammar import path_text
from nemo_airflow.masking import masked_executor
from nemo_airflow.reproduction import comparing
from nemo_airflow.reproduction.packages import RecordedPackager, recorded_packager
from nemo_airflow.reproduction.report import Part, Report, Verdict
from nemo_airflow.runner import digests, environment
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.runner.masking import MASK
from nemo_airflow.store import PackageStore
from nemo_airflow.tracking.base import INPUT_RUN, REPRODUCES, VARIATION
from nemo_airflow.tracking.mlflow.jobs import JobRuns
from nemo_airflow.tracking.mlflow.recorded import RecordedRun, recorded_run

_WHOLE_DIGEST = 36
"""Characters of the digest of a data set that was read, as MLflow keeps it."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where runs and their code are.

    Attributes:
        tracking_uri: MLflow's address; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.
        repositories: Folders in repositories with the code of runs, the first ones first.
        trusts_overrides: Whether overrides come from who runs this process: they may then name files, relative to the
            current folder, and any function of the run's code; else only what its config or its author named.
    """

    tracking_uri: str | None = None
    conn_id: str | None = None
    repositories: tuple[str, ...] = ()
    trusts_overrides: bool = False

    def find(self, text: str) -> RecordedRun:
        """Returns a run by its id, its job's key, or the beginning of that. Blocks.

        Raises:
            TrackingError: There is none, or it is not the run of a job.
        """
        run_id = JobRuns(self.tracking_uri, self.conn_id).find(text.removeprefix("run:")).run_id
        return recorded_run(run_id, self.tracking_uri, self.conn_id)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What is to run.

    Attributes:
        run: The original.
        plan: The config.
        overrides: The changes of a variation; empty for a reproduction.
        executor: Where it runs.
        packager: What ships its code, or None.
        env: Its variables.
        experiment: Name of the experiment in MLflow.
        tags: What names it in MLflow as a reproduction of the original.
        parts: What is known of each part before it runs.
    """

    run: RecordedRun
    plan: Mapping[str, Any]
    overrides: tuple[str, ...]
    executor: Executor
    packager: RecordedPackager | None
    env: Mapping[str, str]
    experiment: str
    tags: Mapping[str, str]
    parts: tuple[Part, ...]

    @property
    def allow(self) -> tuple[str, ...]:
        """What its job may import."""
        return tuple(dict.fromkeys((*self.run.asked.get("allow", ()), *plans.targets(self.plan))))

    @property
    def name(self) -> str:
        """Its job's name."""
        return str(self.run.asked.get("name") or self.run.tags.get("mlflow.runName") or "reproduced")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Patterns of files to keep."""
        return tuple(self.run.asked.get("outputs") or ())

    @property
    def collector(self) -> str:
        """Which outputs are kept, as ``"pkg.mod:Class"``; empty for all."""
        return str(self.run.asked.get("collector") or "")

    @property
    def description(self) -> str:
        """What it is, for people."""
        if self.overrides:
            return f"A variation ({', '.join(self.overrides)}) of run {self.run.run_id}."
        return f"Reproduces run {self.run.run_id}."

    def report(self, tolerance: float) -> Report:
        """Returns what is known before it runs."""
        return Report(self.run.run_id, self.run.key, "", "", tolerance, self.parts, self.overrides)


def restore(
    run: RecordedRun,
    source: Source,
    *,
    on: Executor | None,
    overrides: Mapping[str, Any] | Sequence[str] = (),
) -> Restored:
    """Returns what runs the same again; its package and inputs are on this machine then. Submits nothing. Blocks.

    Args:
        run: The run.
        source: Where it is from.
        on: Where it is to run; None for where it ran.
        overrides: Values by path, or texts such as ``lr=0.1``, which make a variation of it.

    Raises:
        TrackingError: The run has not ended, or has no executor that could be restored.
        PackagingError: Its package is gone, and cannot be built again.
        ArtifactError: An input is gone.
        ConfigError: An override is wrong, or a value of the config was a secret.
        ExecutorError: Its image is gone, or its executor is not installed here.
        BackendUnavailable: The back-end is away.
    """
    if not run.state:
        raise TrackingError(
            f"run {run.run_id} has not ended yet: wait for job {run.key} ('nemo-airflow attach {run.key}')"
        )
    executor, masked = _restore_executor(run, on)
    executor, image = _restore_image(run, executor)
    packager, package = _restore_package(run, executor, source)
    plan = _vary(run, packager, overrides, source) if overrides else run.plan
    refuse_masked(plan, f"run {run.run_id}")
    env = {name: value for name, value in comparing.own_variables(run.asked).items() if MASK not in value}
    masked += [name for name, value in comparing.own_variables(run.asked).items() if MASK in value]
    libraries, devices = _look_at_machine(run, executor)
    parts = (
        comparing.compare_plans(run.plan, plan),
        package,
        _restore_inputs(run, plan, executor),
        comparing.compare_executors(run.asked.get("executor"), masked_executor(executor)),
        _variables(run, masked),
        image,
        libraries,
        devices,
        comparing.compare_seeds(comparing.seeds_of(run.plan, run.asked), comparing.seeds_of(plan, run.asked)),
    )
    changes = [f"{path}={value}" for path, value in overrides.items()] if isinstance(overrides, Mapping) else overrides
    return Restored(
        run,
        plan,
        tuple(changes),
        executor,
        packager,
        env,
        _experiment_of(run, source),
        reproduction_tags(run.run_id, changes),
        parts,
    )


def _restore_executor(run: RecordedRun, on: Executor | None) -> tuple[Executor, list[str]]:
    """Returns where to run, and the variables of the executor that held secrets."""
    if on is not None:
        return on, []
    recorded = dict(run.asked.get("executor") or {})
    if not recorded:
        raise TrackingError(f"run {run.run_id} does not say with which executor it ran: give one with --on EXECUTOR")
    whose = run.tags.get("airflow.installation", "")
    if whose != installation_id():
        raise TrackingError(
            f"run {run.run_id} is of another installation ({whose or 'unnamed'}), whose connections and folders are "
            "not those of this one: give where it is to run here with --on EXECUTOR"
        )
    env = recorded.get("env") or {}
    masked = [name for name, value in env.items() if MASK in value]
    recorded["env"] = {name: value for name, value in env.items() if name not in masked}
    try:
        return executor_from_json(recorded), masked
    except ExecutorError as error:
        raise ExecutorError(
            f"the executor of run {run.run_id} cannot be restored: {error}; give another with --on EXECUTOR"
        ) from error


def _restore_image(run: RecordedRun, executor: Executor) -> tuple[Executor, Part]:
    """Returns the executor, with the image by its digest where its name is that of another one by now."""
    name = str(getattr(executor, "container_image", "") or "")
    before = {key: run.environment.get(key, "") for key in ("image", "image_digest")}
    if not name:
        return executor, comparing.compare_images(before, {})
    recorded, now = before["image_digest"], _image_digest(executor)
    is_docker = run.tags.get("nemo_airflow.backend") == executor.kind
    if now is None or (not recorded and now):
        why = "its digest was not recorded" if not recorded else "the back-end tells its digest when it runs"
        return executor, Part("image", Verdict.NOT_KNOWN, f"{before['image'] or 'none'} -> {name}: {why}")
    if recorded and now == recorded:
        return executor, Part("image", Verdict.SAME, f"{name}, {recorded}")
    if recorded and is_docker:
        pinned: Any = dataclasses.replace(executor, **{"container_image": recorded})
        if _image_digest(pinned) == recorded:
            return pinned, Part("image", Verdict.SAME, f"{recorded}: {name} is another image by now")
    if now:
        return executor, Part("image", Verdict.DIFFERS, f"{recorded} -> {now}: {name} is another image by now")
    if getattr(executor, "pull", "") == "never":
        raise ExecutorError(
            f"image {name} of run {run.run_id} is gone from where its jobs run, and pull is 'never': load it there, or "
            "give an executor with another image with --on EXECUTOR"
        )
    return executor, Part("image", Verdict.NOT_RESTORED, f"{name} is not there any more: it is pulled again")


def _image_digest(executor: Executor) -> str | None:
    async def ask() -> str | None:
        return await JobService.shared(executor).driver.image_digest(executor)

    return blocking.run(ask())


def _restore_package(run: RecordedRun, executor: Executor, source: Source) -> tuple[RecordedPackager | None, Part]:
    async def reads_zstd() -> bool:
        return await JobService.shared(executor).driver.reads_zstd(executor)

    packager = recorded_packager(run, source.repositories, reads_zstd=blocking.run(reads_zstd()))
    if packager is None:
        folder = comparing.own_variables(run.asked).get("PYTHONPATH", "")
        if folder and not executor.shares_filesystem:
            raise PackagingError(
                f"run {run.run_id} shipped no package: its job imported the code from {folder}, which a job of the "
                f"{executor.kind} back-end does not see: ship the code with 'nemo-airflow run', from a git repository"
            )
        where = f"from {folder}, as it is now" if folder else "from its image"
        return None, Part("package", Verdict.NOT_RECORDED, f"it shipped none: its job imports the code {where}")
    packager.package(PackageStore(settings.packages_folder()))
    return packager, Part("package", Verdict.SAME, comparing.describe_package(run))


def _restore_inputs(run: RecordedRun, plan: Mapping[str, Any], executor: Executor) -> Part:
    """Brings the artifacts of the config here, and looks at data sets that are files of this machine."""
    found = list(artifacts_in(plan))
    for given in found:
        bring_here(given)
    changed = [line for data in run.datasets if executor.shares_filesystem and (line := _changed(data))]
    if changed:
        return Part("inputs", Verdict.NOT_RESTORED, "data sets are not what they were", tuple(changed))
    named = sorted({data.name for data in run.datasets} - {given.name or given.file for given in found})
    detail = ", ".join(str(given) for given in found)
    if named:
        seen = f"its job reads {', '.join(named)} where they are now"
        return Part("inputs", Verdict.NOT_KNOWN, f"{detail}; {seen}" if detail else seen)
    return Part("inputs", Verdict.SAME, detail or "none")


def _changed(data: Any) -> str:
    """Returns how a data set in a file or folder of this machine differs from what a job read; empty if not."""
    if data.source_type != "local" or len(data.digest) != _WHOLE_DIGEST:
        return ""
    path = Path(str(json.loads(data.source).get("uri", "")))
    if not path.exists():
        return f"{data.name}: {path} is gone"
    now = digests.digest_of(str(path))[:_WHOLE_DIGEST]
    return "" if now == data.digest else f"{data.name}: {path} is {now[:12]} now, and was {data.digest[:12]}"


def _variables(run: RecordedRun, masked: Sequence[str]) -> Part:
    if masked:
        detail = f"{', '.join(sorted(masked))}: the values held secrets, which are not recorded"
        return Part("variables", Verdict.NOT_RESTORED, f"{detail}; give them to the job as secrets")
    return comparing.compare_variables(run.asked, run.asked)


def _look_at_machine(run: RecordedRun, executor: Executor) -> tuple[Part, Part]:
    """Compares this machine, where a local job runs; another one tells of itself when the job has started."""
    if isinstance(executor, LocalExecutor) and executor.python is None:
        here = environment.capture({}, "")
        return comparing.compare_libraries(run.environment, here), comparing.compare_devices(run.environment, here)
    return (
        Part("libraries", Verdict.NOT_KNOWN, f"the {executor.kind} back-end tells when it runs"),
        Part("devices", Verdict.NOT_KNOWN, f"the {executor.kind} back-end tells when it runs"),
    )


def _vary(
    run: RecordedRun,
    packager: RecordedPackager | None,
    overrides: Mapping[str, Any] | Sequence[str],
    source: Source,
) -> Mapping[str, Any]:
    """Returns the config with changes, which are read as the annotations of the recorded code want them."""
    allow = [*run.asked.get("allow", ()), *plans.targets(run.plan)]
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        folder = comparing.own_variables(run.asked).get("PYTHONPATH", "").partition(":")[0] or scratch
        if packager is not None:
            folder = scratch
            packager.unpack(PackageStore(settings.packages_folder()), Path(folder))
        config = plans.from_plan(run.plan, allow, folder)
        named = packages_in(folder) if source.trusts_overrides else []
        origin = Origin(
            "the reproduction",
            (*allow, *(f"{package}." for package in named)),
            Path.cwd() if source.trusts_overrides else None,
        )
        return plans.to_plan(change(config, overrides, origin))


def refuse_masked(plan: Mapping[str, Any], whose: str) -> None:
    """Refuses a plan that held secrets when it was recorded.

    Args:
        plan: The plan.
        whose: What ran it, for the error.

    Raises:
        ConfigError: It did.
    """
    nodes = check(plan, list_nodes=True).nodes
    masked = [path_text(path) for node, kind, path in nodes if kind == "value" and MASK in str(node)]
    if masked:
        raise ConfigError(
            f"the config of {whose} held a secret at {', '.join(masked)}, which is not recorded: give it, as "
            f"in {masked[0]}=VALUE, or let the job read it from its secrets"
        )


def reproduction_tags(run_id: str, changes: Sequence[str]) -> dict[str, str]:
    """Returns the tags of a run that reproduces another one, with these changes to its config."""
    return {REPRODUCES: run_id, f"{INPUT_RUN}{run_id}": "reproduction", VARIATION: ", ".join(changes)}


def _experiment_of(run: RecordedRun, source: Source) -> str:
    client = MLflowHook(source.conn_id, source.tracking_uri).get_conn()
    try:
        return str(client.get_experiment(run.experiment_id).name)
    except Exception as error:  # MLflow's client raises the errors of its stores
        raise TrackingError(f"the experiment of run {run.run_id} cannot be read: {error}") from error
