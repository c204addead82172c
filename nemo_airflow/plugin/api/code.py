"""What a job ran: its commit and patch, its environment, the script that was submitted, what was in its package."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from nemo_airflow.connections import redact
from nemo_airflow.exceptions import NemoAirflowError, StoreError
from nemo_airflow.job import Package
from nemo_airflow.packaging.archive import FORMATS
from nemo_airflow.plugin.api.answers import Answer
from nemo_airflow.plugin.api.earlier import Against, EarlierRun, ask, describe, earlier_run, need_run
from nemo_airflow.plugin.api.found import FoundJobDep, Source
from nemo_airflow.reproduction import comparing
from nemo_airflow.reproduction.report import Part, Verdict, changes_of
from nemo_airflow.runner.unpack import UnpackError, add_sizes
from nemo_airflow.store import PackageStore
from nemo_airflow.store.address import configured_store
from nemo_airflow.tracking.forges import commit_page
from nemo_airflow.tracking.mlflow.files import RunFiles
from nemo_airflow.tracking.mlflow.recorded import ENVIRONMENT, INCLUDED, PATCH, RecordedRun, recorded_run
from nemo_airflow.tracking.reserved import RECORD

router = APIRouter(tags=["code"])

_TEXT = 1 << 20
"""Bytes of a patch or script that an answer has at most."""

_LISTED = 2000
"""Files that an answer names at most."""

_PACKAGE = 64 << 20
"""Bytes of a package that is fetched to list what is in it."""


class CodePart(Answer):
    """A part of a package that has several.

    Attributes:
        prefix: Its folder in the package; empty for the root.
        kind: The packager.
        commit: Its commit, or empty.
        url: The commit's page, or empty.
        subpath: The folder of its repository.
    """

    prefix: str
    kind: str
    commit: str = ""
    url: str = ""
    subpath: str = ""


class Code(Answer):
    """The code of a job.

    Attributes:
        commit: Its git commit, or empty.
        url: The commit's page, or empty.
        branch: Its branch, or empty.
        origin: The repository, or empty.
        dirty: Whether there were uncommitted changes.
        patch: These, or the beginning of them.
        patch_is_cut: Whether that is only the beginning.
        why_no_patch: Why uncommitted changes are not shown, in one line; or empty.
        package: The digest of what was shipped, or empty.
        parts: Its parts, where it has several.
        included: Files in it that git does not track.
        excluded: Patterns of files that were not shipped.
    """

    commit: str = ""
    url: str = ""
    branch: str = ""
    origin: str = ""
    dirty: bool = False
    patch: str = ""
    patch_is_cut: bool = False
    why_no_patch: str = ""
    package: str = ""
    parts: list[CodePart] = Field(default_factory=list)
    included: list[str] = Field(default_factory=list)
    excluded: list[str] = Field(default_factory=list)


class ChangedPart(Answer):
    """What differs in one respect.

    Attributes:
        name: The respect.
        verdict: ``same``, ``differs`` or that it was not recorded.
        detail: More, in one line; or empty.
        lines: A line for each difference: ``+`` only this run has it, ``-`` only the other, ``~`` another value.
    """

    name: str
    verdict: str
    detail: str
    lines: list[str]


class CodeAnswer(Answer):
    """The code of a job, compared with that of an earlier run.

    Attributes:
        code: The code.
        other_run: The earlier run; None where there is none, or none was asked for.
        other: Its code.
        changes: What differs.
    """

    code: Code
    other_run: EarlierRun | None = None
    other: Code | None = None
    changes: list[ChangedPart] = Field(default_factory=list)


class Fact(Answer):
    """A value of an environment.

    Attributes:
        name: What it is.
        value: Its value, as a text.
    """

    name: str
    value: str


class EnvironmentAnswer(Answer):
    """Where a job ran, compared with an earlier run.

    Attributes:
        is_known: Whether the job has told its environment.
        facts: Python, host, image, devices.
        packages: The version of each installed distribution, by name.
        variables: Names of its environment variables, never their values.
        other_run: The earlier run; None where there is none, or none was asked for.
        changes: What differs.
    """

    is_known: bool
    facts: list[Fact]
    packages: dict[str, str]
    variables: list[str]
    other_run: EarlierRun | None = None
    changes: list[ChangedPart] = Field(default_factory=list)


class Script(Answer):
    """What was sent to the back-end.

    Attributes:
        text: The script or manifest, or the beginning of it.
        is_cut: Whether that is only the beginning.
        other_run: The earlier run whose script is asked for as well; None where there is none.
        other: The script of that run.
    """

    text: str
    is_cut: bool = False
    other_run: EarlierRun | None = None
    other: str = ""


class PackageFile(Answer):
    """A file in a package.

    Attributes:
        path: Its path there.
        size: Its bytes.
    """

    path: str
    size: int


class PackageContents(Answer):
    """What was shipped.

    Attributes:
        digest: The package's digest, or empty.
        size: Bytes of its archives.
        files: Its files by path, the first ones.
        total: How many there are.
        why_not: Why they are not known, in one line; or empty.
    """

    digest: str = ""
    size: int = 0
    files: list[PackageFile] = Field(default_factory=list)
    total: int = 0
    why_not: str = ""


@router.get("/job/code")
def read_code(found: FoundJobDep, compared_with: Against = "") -> CodeAnswer:
    """Returns the code of a job, and what differs from an earlier run of its task."""
    run, source = need_run(found)
    recorded = _recorded(source, run.run_id, (PATCH, INCLUDED))
    earlier = ask(lambda: earlier_run(found, compared_with))
    if earlier is None:
        return CodeAnswer(code=_code(recorded))
    other = _recorded(source, earlier.run_id, (PATCH, INCLUDED))
    before, after = ({"commit": each.commit, "patch": _patch_name(each)} for each in (other, recorded))
    parts = [
        _part(Part("commit", _verdict(lines := changes_of(before, after)), "", lines)),
        _part(comparing.compare_packages(other, recorded)),
        _part(Part("included files", _verdict(lines := changes_of(other.included, recorded.included)), "", lines)),
    ]
    return CodeAnswer(code=_code(recorded), other_run=describe(earlier), other=_code(other), changes=parts)


@router.get("/job/environment")
def read_environment(found: FoundJobDep, compared_with: Against = "") -> EnvironmentAnswer:
    """Returns the environment in which a job ran, and what differs from an earlier run of its task."""
    run, source = need_run(found)
    environment = _recorded(source, run.run_id, (ENVIRONMENT,)).environment
    earlier = ask(lambda: earlier_run(found, compared_with))
    changes: list[ChangedPart] = []
    if earlier is not None:
        other = _recorded(source, earlier.run_id, (ENVIRONMENT,)).environment
        compared = (comparing.compare_libraries, comparing.compare_devices, comparing.compare_images)
        changes = [_part(compare(other, environment)) for compare in compared]
    packages = environment.get("packages") or {}
    return EnvironmentAnswer(
        is_known=bool(environment),
        facts=[Fact(name=name, value=value) for name, value in _facts(environment).items() if value],
        packages={str(name): str(version) for name, version in packages.items()},
        variables=[str(name) for name in environment.get("env_keys") or ()],
        other_run=describe(earlier),
        changes=changes,
    )


@router.get("/job/script")
def read_script(found: FoundJobDep, compared_with: Against = "") -> Script:
    """Returns exactly what was sent to the back-end, with secrets masked as it was recorded."""
    run, source = need_run(found)
    text, is_cut = _text_of(source, run.run_id, "job_script.txt")
    earlier = ask(lambda: earlier_run(found, compared_with))
    other = _text_of(source, earlier.run_id, "job_script.txt")[0] if earlier else ""
    return Script(text=redact(text), is_cut=is_cut, other_run=describe(earlier), other=redact(other))


@router.get("/job/package")
def list_package(found: FoundJobDep) -> PackageContents:
    """Returns the names and sizes of the files that were shipped, where the shared store has them."""
    package = found.record.get("package") or {}
    digest = str(package.get("digest") or (found.run.tags.get("nemo_airflow.package_digest", "") if found.run else ""))
    if not digest:
        return PackageContents(why_not="this job shipped no package: it imports its code where it runs")
    size = int(package.get("size") or 0)
    try:
        sizes = _sizes(digest, str(package.get("format") or ""), str(package.get("base") or ""), size)
    except (NemoAirflowError, UnpackError, OSError, ImportError) as error:
        return PackageContents(digest=digest, size=size, why_not=str(error))
    files = [PackageFile(path=path, size=each) for path, each in sorted(sizes.items())[:_LISTED]]
    return PackageContents(digest=digest, size=size, files=files, total=len(sizes))


@functools.lru_cache(maxsize=32)
def _sizes(digest: str, form: str, base: str, size: int) -> Mapping[str, int]:
    """Returns the sizes of a package's files by path. It is identified by its content, so it is read once.

    Raises:
        StoreError: It is in no store, or too large.
    """
    store = configured_store()
    if store is None:
        raise StoreError(
            "no shared store is configured (NEMO_AIRFLOW_STORE): what was shipped is only on the machine that packed it"
        )
    if size > _PACKAGE:
        raise StoreError(f"the package has more than {_PACKAGE >> 20} MB: it is not fetched to list what is in it")
    packages = [Package(digest, format=each, base=base) for each in ((form,) if form else FORMATS)]
    package = next((each for each in packages if all(map(store.has_package, each.archives))), None)
    if package is None:
        raise StoreError(f"package {digest[:12]} is not in the shared store any more, or was never put there")
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        cache = PackageStore(Path(scratch))
        for number, archive in enumerate(package.archives):
            add_sizes(str(store.get_package(archive, cache)), sizes, changes=number > 0)
    return sizes


def _recorded(source: Source, run_id: str, files: Sequence[str]) -> RecordedRun:
    return ask(lambda: recorded_run(run_id, source.tracking_uri, source.conn_id, files))


def _code(run: RecordedRun) -> Code:
    patch = run.patch.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    origin = run.tags.get("mlflow.source.git.repoURL", "")
    why_not = "they hold a secret, or could not be recorded: they stay where the job was submitted"
    return Code(
        commit=run.commit,
        url=commit_page(origin, run.commit),
        branch=run.tags.get("mlflow.source.git.branch", ""),
        origin=origin,
        dirty=run.dirty,
        patch=redact(patch)[:_TEXT],
        patch_is_cut=len(patch) > _TEXT,
        why_no_patch=why_not if run.dirty and not patch else "",
        package=run.package_digest,
        parts=[
            CodePart(
                prefix=part.get("prefix", ""),
                kind=part.get("kind", ""),
                commit=part.get("commit", ""),
                url=commit_page(part.get("origin", ""), part.get("commit", "")),
                subpath=part.get("subpath", ""),
            )
            for part in run.parts
        ],
        included=sorted(run.included)[:_LISTED],
        excluded=[str(pattern) for pattern in run.excluded],
    )


def _patch_name(run: RecordedRun) -> str:
    """Returns what tells a run's uncommitted changes apart."""
    if not run.dirty:
        return "no uncommitted changes"
    if not run.patch:
        return "uncommitted changes that are not recorded"
    return f"uncommitted changes {hashlib.sha256(run.patch.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}"


def _verdict(lines: Sequence[str]) -> Verdict:
    return Verdict.DIFFERS if lines else Verdict.SAME


def _part(part: Part) -> ChangedPart:
    return ChangedPart(name=part.name, verdict=str(part.verdict), detail=part.detail, lines=list(part.differences))


def _facts(environment: Mapping[str, Any]) -> dict[str, str]:
    memory = environment.get("memory_bytes") or 0
    gpus = environment.get("gpu_models") or ()
    return {
        "Python": str(environment.get("python", "")),
        "Host": str(environment.get("host", "")),
        "Platform": str(environment.get("platform", "")),
        "Image": str(environment.get("image", "")),
        "Image digest": str(environment.get("image_digest", "")),
        "Processors": str(environment.get("cpus") or ""),
        "Memory": f"{memory / 1e9:.1f} GB" if memory else "",
        "GPUs": ", ".join(str(name) for name in gpus),
        "GPU driver": str(environment.get("gpu_driver", "")),
        "Interpreter": str(environment.get("executable", "")),
        "Folder": str(environment.get("cwd", "")),
    }


def _text_of(source: Source, run_id: str, name: str) -> tuple[str, bool]:
    """Returns the beginning of a text of the record, and whether it is cut; empty where there is none."""
    files = ask(lambda: RunFiles(run_id, source.tracking_uri, source.conn_id))
    path = f"{RECORD}/{name}"
    file = ask(lambda: files.find(path))
    if file is None:
        return "", False
    return ask(lambda: files.beginning(path, _TEXT)).decode("utf-8", "replace"), file.size > _TEXT
