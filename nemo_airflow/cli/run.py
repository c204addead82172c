"""Runs a config on a back-end without a DAG, and shows what it would send."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_airflow import settings
from nemo_airflow.cli.follow import INTERRUPTED, follow_chain
from nemo_airflow.cli.packagers import load_packager
from nemo_airflow.cli.plan import compose_config
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import divert_prints, keep_output_clean, say
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.config.views.differences import diff
from nemo_airflow.exceptions import ConfigError, SettingsError
from nemo_airflow.executors.base import Request
from nemo_airflow.job import Package
from nemo_airflow.launch.following import record_in_background
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.launch.submission import Launch, Options
from nemo_airflow.progress import size_text
from nemo_airflow.runner.unpack import unpack
from nemo_airflow.store import PackageStore
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker

_LARGEST = 5
"""Files of a package that a dry run names."""


def run(
    config: str,
    overrides: Sequence[str],
    executor: str,
    *,
    layers: Sequence[str] = (),
    allow: Sequence[str] = (),
    packager: str,
    name: str,
    experiment: str,
    env: Sequence[str],
    outputs: Sequence[str],
    track: bool,
    tracking_uri: str | None,
    conn_id: str | None,
    detach: bool,
    dry_run: bool,
    max_chain: int,
) -> int:
    """Runs a config, and follows its job to the end; returns 0 if it has succeeded."""
    keep_output_clean()
    where = load_executor(executor)
    folder = Path.cwd()
    options = Options(
        name=name or _name_of(config),
        packager=load_packager(packager, folder, where),
        tracker=_tracker(tracking_uri, conn_id) if track else None,
        experiment=experiment,
        outputs=outputs,
        env=_variables(env),
        folder=folder,
    )
    composed = compose_config(config, overrides, layers, allow)
    with divert_prints():
        launch = Launch(composed, where, options, say)
    package = launch.package(dry=dry_run)
    records = Records()
    if dry_run:
        request = launch.request(package)
        print(request.to_text(), end="")
        for line in (*_foreseen(launch, request), *_package_lines(package), *_changes(records, options.name, launch)):
            print(line)
        return 0
    try:
        record = launch.submit(records, package)
    except KeyboardInterrupt:
        if any(record.key == launch.key for record in records.list()):
            say(
                f"interrupted while job {launch.key} was submitted: if it was, 'nemo-airflow attach {launch.key}' "
                f"follows it, and 'nemo-airflow cancel {launch.key}' ends it"
            )
        return INTERRUPTED
    page = f", run {record.run_page}" if record.run_page else ""
    say(f"submitted job {record.key} to {where.kind} ({record.job.id}){page}")
    if detach:
        record_in_background(records, record.key)
        print(record.key)
        say(f"it is recorded in the background; 'nemo-airflow attach {record.key}' follows it")
        return 0

    def submit_next(last: Launched) -> Launched:
        nonlocal options
        options = dataclasses.replace(
            options, earlier=(last.key, *options.earlier), run_key=options.run_key or last.key
        )  # fmt: skip
        return Launch(composed, where, options, say).submit(records, package)

    return follow_chain(records, record, max_chain, submit_next)


def _name_of(config: str) -> str:
    """Returns the name of a config, for people: that of the function, recipe or file."""
    if ":" in config:
        return config.rpartition(":")[2]
    return Path(config.partition("(")[0]).stem


def _tracker(tracking_uri: str | None, conn_id: str | None) -> Tracker:
    return MLflowTracker(tracking_uri=tracking_uri, conn_id=conn_id)


def _variables(given: Sequence[str]) -> Mapping[str, str]:
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise SettingsError(f"--env {text!r} is not NAME=VALUE: write for example --env OMP_NUM_THREADS=4")
        found[name] = value
    return found


def _foreseen(launch: Launch, request: Request) -> list[str]:
    """Returns when the job would start, where the back-end says that."""
    said = launch.foresee(request)
    return [f"# {said}"] if said else []


def _package_lines(package: Package | None) -> list[str]:
    """Returns the size of a package and its largest files."""
    if package is None:
        return ["# no package: the job imports the code from where it is"]
    state = "with uncommitted changes" if package.dirty else "as committed"
    commit = f"commit {package.commit[:12]}, {state}, " if package.commit else ""
    store = PackageStore(settings.packages_folder())
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        for archive in package.archives:
            unpack(str(store.path(archive.digest, archive.format)), scratch)
        paths = [path for path in Path(scratch).rglob("*") if path.is_file() and not path.is_symlink()]
        files = sorted(((path.stat().st_size, path.relative_to(scratch)) for path in paths), reverse=True)
    named = "".join(f"; {name}: {size_text(size)}" for size, name in files[:_LARGEST])
    return [
        f"# package {package.digest[:12]}: {commit}{size_text(package.size)} packed, files: {len(files)}, the largest"
        f" {named[2:]}"
    ]


def _changes(records: Records, name: str, launch: Launch) -> list[str]:
    """Returns what is changed in the config since the last launch of that name."""
    earlier = next((record for record in records.list() if record.name == name), None)
    if earlier is None:
        return [f"# the first launch of {name!r}"]
    if earlier.digest == launch.digest:
        return [f"# the same config as job {earlier.key}"]
    try:
        changes = diff(ConfigVersions().load(earlier.digest), launch.public_plan).to_text()
    except ConfigError:
        return [f"# the config of job {earlier.key} is not kept any more"]
    return [f"# changed since job {earlier.key}:", *(f"#   {line}" for line in changes.splitlines())]
