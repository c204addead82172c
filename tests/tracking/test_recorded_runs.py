"""Runs are read back from MLflow, and compared with one another and with the code of now."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.log import mask_secret
from mlflow import MlflowClient
from tracking_cases import PLAN, make_job, make_package, open_run

from nemo_airflow import Artifact, GitArchivePackager, HybridPackager, PatternPackager
from nemo_airflow.cli import main
from nemo_airflow.comparison.code_changes import CodeState, code_changes
from nemo_airflow.exceptions import PackagingError, TrackingError
from nemo_airflow.job import JobState, JobStatus, Package
from nemo_airflow.store import PackageStore, open_store
from nemo_airflow.store.address import publish
from nemo_airflow.store.trees import put_tree
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.recorded import recorded_run

ENVIRONMENT = {"python": "3.11.7", "host": "n1", "packages": {"torch": "2.3", "gone": "1"}}


def git(folder: Path, *arguments: str, text: str = "") -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "code"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("one\ntwo\n")
    (folder / "old é.py").write_text("x\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    monkeypatch.chdir(folder)
    return folder


def tracked(tracker: MLflowTracker, name: str, plan: Any = PLAN, **package: Any) -> RunRef:
    content = {
        "digest": hashlib.sha256(f"{package}".encode("utf-8", "surrogateescape")).hexdigest(),
        **package,
    }  # other code, another digest
    ref = open_run(tracker, make_job(name, plan=plan, package=make_package(**content)))
    other = {"packages": {"torch": "2.4", "new": "1"}} if "2" in name else {}
    tracker.documents(ref, tracker.environment(ref, {**ENVIRONMENT, **other}))
    return ref


def tracked_package(tracker: MLflowTracker, name: str, package: Package) -> str:
    return f"run:{open_run(tracker, make_job(name, plan=PLAN, package=package)).run_id}"


def code_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("code:") + 1
    return [line.strip() for line in lines[begin:] if line.startswith("  ")]


@pytest.mark.parametrize(
    ("name", "patch"),
    [("read back", "--- a\n+++ b\n"), ("read back bytes", "-caf\udce9 one\r\n+caf\udce9 other\r\n")],
)
def test_a_run_is_read_back(tracker: MLflowTracker, name: str, patch: str) -> None:
    ref = tracked(tracker, name, dirty=True, patch=patch)
    run = recorded_run(ref.run_id, tracker.tracking_uri)
    assert (run.plan, run.commit, run.dirty, run.patch) == (PLAN, "c" * 40, True, patch)
    assert run.environment["packages"]["torch"] == "2.3"
    with pytest.raises(TrackingError, match=r"has no nemo_airflow/plan\.json"):
        recorded_run(ref.parent_id, tracker.tracking_uri)
    with pytest.raises(TrackingError):
        recorded_run("0" * 32, tracker.tracking_uri)


def test_a_collection_spares_what_runs_name(
    tracker: MLflowTracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "store"))
    store = open_store(str(tmp_path / "store"))
    digests = {}
    for name in ("outputs", "unnamed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.txt").write_text(name)
        digests[name] = put_tree(store, tmp_path / name)
    for file in (tmp_path / "store").rglob("*"):
        os.utime(file, (0, 0))
    ref = tracked(tracker, f"names its outputs {tracker.tracking_uri}", digest=secrets.token_hex(32))
    tracker.tag(ref, {OUTPUTS_DIGEST: digests["outputs"]})
    where = ["--keep-runs", "--tracking-uri", str(tracker.tracking_uri)]
    assert main(["store", "gc", "--older-than", "1", *where]) == 0
    assert capsys.readouterr().out.splitlines()[1] == f"trees/{digests['unnamed']}"
    assert [entry.name for entry in store.entries("trees")] == [f"trees/{digests['outputs']}"]
    assert main(["store", "gc", "--older-than", "1", "--keep-runs", "--tracking-uri", "http://127.0.0.1:9"]) == 2
    assert "cannot be reached" in capsys.readouterr().err
    assert store.entries("trees")
    MlflowClient(tracker.tracking_uri).delete_run(ref.run_id)
    assert main(["store", "gc", "--older-than", "1", *where]) == 0
    assert not store.entries("trees")


def test_a_collection_without_a_shared_store_spares_the_packages_that_runs_name(
    tracker: MLflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NEMO_AIRFLOW_STORE", raising=False)
    store = PackageStore(tmp_path / "home" / "packages")
    named, unnamed = secrets.token_hex(32), secrets.token_hex(32)
    for digest in (named, unnamed):
        with store.write(digest) as file:
            file.write(b"archive")
        os.utime(store.path(digest), (0, 0))
    tracked(tracker, f"names its package {tracker.tracking_uri}", digest=named)
    where = ["--keep-runs", "--tracking-uri", str(tracker.tracking_uri)]
    assert main(["store", "gc", "--older-than", "1", *where]) == 0
    assert store.path(named).exists()
    assert not store.path(unnamed).exists()


@pytest.fixture
def large_patch(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package whose patch is too large for its description, on this machine and in a shared store."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    (repository / "table.bin").write_bytes(os.urandom(2 << 20))
    (repository / "train.py").write_text(f"TOKEN = {secrets.token_hex(16)!r}\n")
    package = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include").package(
        PackageStore(tmp_path / "home" / "packages")
    )
    assert package.patch_digest
    assert not package.patch
    publish(package)
    return package


def test_a_patch_of_any_size_is_in_its_run_and_can_be_applied(
    tracker: MLflowTracker, repository: Path, large_patch: Package, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "home")  # as where another machine opens the run
    key = f"large patch {secrets.token_hex(4)}"
    ref = open_run(tracker, make_job(key, package=large_patch))
    run = recorded_run(ref.run_id, tracker.tracking_uri)
    assert hashlib.sha256(run.patch.encode("utf-8", "surrogateescape")).hexdigest() == large_patch.patch_digest
    changes = code_changes(repository, CodeState(run.commit), CodeState(run.commit, run.patch))
    assert [change.path for change in changes] == ["table.bin", "train.py"]


def test_a_large_patch_with_a_secret_stays_on_this_machine_and_its_run_says_so(
    tracker: MLflowTracker, repository: Path, large_patch: Package, caplog: pytest.LogCaptureFixture
) -> None:
    mask_secret((repository / "train.py").read_text().split("'")[1])
    ref = open_run(tracker, make_job(f"secret patch {secrets.token_hex(4)}", package=large_patch))
    assert recorded_run(ref.run_id, tracker.tracking_uri).patch == ""
    assert f"{large_patch.stored_patch}.patch holds a secret and stays on this machine" in caplog.text


def test_a_patch_that_was_kept_apart_is_not_recorded_by_a_process_that_does_not_know_the_secret(
    tracker: MLflowTracker, large_patch: Package
) -> None:
    apart = dataclasses.replace(large_patch, keeps_patch_apart=True)
    ref = open_run(tracker, make_job(f"apart {secrets.token_hex(4)}", package=apart))
    assert recorded_run(ref.run_id, tracker.tracking_uri).patch == ""


def test_two_runs_differ_in_config_code_and_environment(
    tracker: MLflowTracker, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    (repository / "train.py").write_text("one\nthree\nfour\n")
    patch = git(repository, "diff", "--binary", "--full-index")
    git(repository, "checkout", "-q", ".")
    first = tracked(tracker, "first run 1", commit=commit)
    root = {**PLAN["root"], "lr": 0.2}  # type: ignore[dict-item]
    second = tracked(tracker, "second run 2", {"version": 1, "root": root}, commit=commit, dirty=True, patch=patch)
    where = ["--tracking-uri", str(tracker.tracking_uri)]
    assert main(["diff", f"run:{first.run_id}", f"run:{second.run_id}", *where]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "config:",
        "  ~ lr: 0.1 -> 0.2",
        "  1 changed",
        "code:",
        "  M train.py (+2 -1)",
        "environment:",
        "  - gone: 1",
        "  + new: 1",
        "  ~ torch: 2.3 -> 2.4",
    ]
    assert main(["diff", f"run:{first.run_id}", f"run:{first.run_id}", *where]) == 0
    assert capsys.readouterr().out.splitlines() == ["config: the same", "code: the same", "environment: the same"]
    assert main(["diff", "--json", f"run:{first.run_id}", f"run:{second.run_id}", *where]) == 1
    assert json.loads(capsys.readouterr().out)["code"] == ["M train.py (+2 -1)"]


def test_files_that_git_does_not_track_are_recorded_and_compared(
    tracker: MLflowTracker, repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".gitignore").write_text("build/\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "built files are ignored")
    (repository / "build").mkdir()
    runs = []
    for name, files in (("first", {"x.so": "1", "y.so": "1"}), ("second", {"x.so": "2", "z.so": "1"})):
        for old in (repository / "build").iterdir():
            old.unlink()
        for path, text in files.items():
            (repository / "build" / path).write_text(text)
        package = GitArchivePackager(path=str(repository), include=["build/*.so"]).package(PackageStore(tmp_path / "s"))
        runs.append(tracked_package(tracker, f"{name} with built files", package))
    where = ["--tracking-uri", str(tracker.tracking_uri)]
    assert main(["diff", *runs, *where]) == 1
    differences = [f"{kind} build/{name}.so (not tracked by git)" for kind, name in ("Mx", "Dy", "Az")]
    assert code_lines(capsys) == differences
    run = MlflowClient(tracker.tracking_uri).get_run(runs[0].removeprefix("run:"))
    assert run.data.tags["nemo_airflow.dirty"] == "included"


def test_code_without_a_commit_is_compared_by_its_package(
    tracker: MLflowTracker, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--tracking-uri", str(tracker.tracking_uri)]
    digests = (secrets.token_hex(32), secrets.token_hex(32))
    first, same, other = (
        f"run:{tracked(tracker, f'{name} without commit', commit='', digest=digest).run_id}"
        for name, digest in (("first", digests[0]), ("same", digests[0]), ("other", digests[1]))
    )
    assert main(["diff", first, same, *where]) == 0
    assert "code: the same" in capsys.readouterr().out
    assert main(["diff", first, other, *where]) == 1
    assert f"{first} has no commit" in capsys.readouterr().out


def test_a_run_and_the_working_tree(
    tracker: MLflowTracker, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    run = f"run:{tracked(tracker, 'of the tree', commit=commit).run_id}"
    before = git(repository, "count-objects")
    (repository / "old é.py").unlink()
    (repository / "new.bin").write_bytes(b"\0\1")
    (repository / ".gitignore").write_text("*.log\n")
    (repository / "a.log").write_text("ignored")
    assert main(["diff", run, ".", "--tracking-uri", str(tracker.tracking_uri)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "config: not compared",
        "code:",
        "  A .gitignore (+1 -0)",
        "  A new.bin (binary)",
        "  D old é.py (+0 -1)",
        "environment: not compared",
    ]
    assert git(repository, "count-objects") == before
    elsewhere = tracked(tracker, "elsewhere", commit="e" * 40)
    assert main(["diff", f"run:{elsewhere.run_id}", ".", "--tracking-uri", str(tracker.tracking_uri)]) == 1
    assert "commit eeeeeeeeeeee is not in" in capsys.readouterr().out


@pytest.fixture
def two_repositories(repository: Path, tmp_path: Path) -> tuple[HybridPackager, Path]:
    """Returns a packager of the repository and of a folder of another one, and that other one."""
    other = tmp_path / "other"
    (other / "src").mkdir(parents=True)
    git(other, "init", "-q")
    (other / "src" / "lib.py").write_text("lib\n")
    (other / "train.py").write_text("not shipped\n")
    git(other, "add", ".")
    git(other, "commit", "-qm", "first")
    packager = HybridPackager(
        sub_packagers={
            "": GitArchivePackager(path=str(repository), uncommitted="include"),
            "vendor/lib": GitArchivePackager(path=str(other), subpath="src", uncommitted="include"),
        }
    )
    return packager, other


def test_runs_of_several_repositories_with_changes_differ_in_the_files_of_each(
    tracker: MLflowTracker,
    repository: Path,
    two_repositories: tuple[HybridPackager, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packager, other = two_repositories
    store = PackageStore(tmp_path / "packages")
    clean = tracked_package(tracker, "several, clean", packager.package(store))
    (repository / "train.py").write_text("one\nthree\n")
    (other / "src" / "lib.py").write_text("lib\nmore\n")
    dirty = tracked_package(tracker, "several, dirty", packager.package(store))
    (other / "src" / "lib.py").write_text("lib\nmore\nand more\n")
    dirtier = tracked_package(tracker, "several, dirtier", packager.package(store))
    where = ["--tracking-uri", str(tracker.tracking_uri)]
    both = [*where, "--repository", str(other)]

    assert main(["diff", clean, dirty, *both]) == 1
    assert code_lines(capsys) == ["M train.py (+1 -1)", "M vendor/lib/lib.py (+1 -0)"]
    assert main(["diff", dirty, dirtier, *both]) == 1
    assert code_lines(capsys) == ["M vendor/lib/lib.py (+1 -0)"]
    assert main(["diff", dirty, ".", *both]) == 1  # the working trees are as of the last run
    assert code_lines(capsys) == ["M vendor/lib/lib.py (+1 -0)"]
    assert main(["diff", dirtier, ".", *both]) == 0
    assert main(["diff", clean, dirty, *where]) == 1
    [first, second] = code_lines(capsys)[-2:]
    assert first == "M train.py (+1 -1)"
    assert second.startswith("vendor/lib (git): commit ")
    assert second.endswith(f"is not in {repository}: fetch it, or name the repository that has it with --repository")


def test_what_is_shipped_besides_repositories_is_told_apart(
    tracker: MLflowTracker,
    repository: Path,
    two_repositories: tuple[HybridPackager, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    packager, other = two_repositories
    store = PackageStore(tmp_path / "packages")
    several = tracked_package(tracker, "of several", packager.package(store))
    data = tmp_path / "data"
    data.mkdir()
    (data / "table.csv").write_text("1\n")
    more = HybridPackager(sub_packagers={**packager.sub_packagers, "data": PatternPackager(path=str(data))})
    with_data = tracked_package(tracker, "with data", more.package(store))
    (data / "table.csv").write_text("2\n")
    other_data = tracked_package(tracker, "with other data", more.package(store))
    where = ["--tracking-uri", str(tracker.tracking_uri), "--repository", str(other)]
    for old, new, lines in (
        (several, with_data, ["A data (pattern)"]),
        (with_data, several, ["D data (pattern)"]),
        (with_data, other_data, ["data (pattern) is of no commit: what differs in it is not known"]),
    ):
        assert main(["diff", old, new, *where]) == 1
        assert code_lines(capsys) == lines


def test_a_patch_of_several_that_was_recorded_before_sections_is_of_the_first_repository(
    tracker: MLflowTracker, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    (repository / "train.py").write_text("one\nthree\nfour\n")
    patch = f"# in the root, of a repository without origin at {commit}\n{git(repository, 'diff', '--binary')}"
    git(repository, "checkout", "-q", ".")
    parts = (
        {"prefix": "data", "kind": "pattern", "commit": "", "origin": ""},
        {"prefix": "", "kind": "git", "commit": commit, "origin": ""},
    )
    old, new = (
        f"run:{tracked(tracker, name, commit=commit, parts=parts, **changes).run_id}"
        for name, changes in (("before, clean", {}), ("before, dirty", {"dirty": True, "patch": patch}))
    )
    assert main(["diff", old, new, "--tracking-uri", str(tracker.tracking_uri)]) == 1
    assert "  M train.py (+2 -1)" in capsys.readouterr().out.splitlines()


def test_changes_that_do_not_fit_their_commit_are_named(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD").strip()
    patch = "diff --git a/train.py b/train.py\n--- a/train.py\n+++ b/train.py\n@@ -1 +1 @@\n-other\n+new\n"
    with pytest.raises(PackagingError, match="cannot be applied"):
        code_changes(repository, CodeState(commit), CodeState(commit, patch))


def diff_of(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["diff", *words, "-o", "json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_run_is_compared_with_the_newest_that_succeeded_before_it(
    tracker: MLflowTracker, uri: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word, ids = secrets.token_hex(4), []
    commit = git(repository, "rev-parse", "HEAD").strip()
    states = (JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.SUCCEEDED)
    for number, state in enumerate(states):
        given = Artifact(
            f"{number:02}" * 32, 3, file="rows", name="rows", output="rows", job="maker-1", run_id="1" * 32
        )
        plan = {**PLAN, "root": {**PLAN["root"], "lr": number, "rows": given.to_json()}}
        labels = {"dag_id": f"dag {word}", "task_id": "train"}
        job = make_job(
            f"{number} {word}", plan=plan, labels=labels, package=make_package(digest="d" * 64, commit=commit)
        )
        ref = open_run(tracker, job, parent=word)
        tracker.documents(ref, tracker.config(ref, plan))
        tracker.metrics(ref, [Metric("loss", 1 / (number + 1), 0, 1.7e9), Metric("system/cpu", number, 0, 1.7e9)], 10)
        tracker.metrics(ref, [Metric("same", math.nan, 0, 1.7e9)], 20)
        tracker.ended(ref, JobStatus(state, int(state is not JobState.SUCCEEDED)))
        ids.append((ref.run_id, job.key))
    where = ("--tracking-uri", uri)
    code, found = diff_of(capsys, "--last-good", ids[3][1], *where)
    assert (code, found["metrics"]) == (1, ["~ loss: 0.5 -> 0.25"])
    assert found["inputs"] == [f"~ rows: {'1' * 32} {'01' * 32} -> {'1' * 32} {'03' * 32}"]
    assert found["code"] == []
    assert diff_of(capsys, "--last-good", f"run:{ids[3][0]}", *where)[1] == found
    assert diff_of(capsys, f"run:{ids[1][1]}", f"run:{ids[3][0]}", *where)[1] == found
    assert main(["diff", "--last-good", ids[0][0], *where]) == 2
    assert f"no run of task train of DAG dag {word} has succeeded before run {ids[0][0]}" in capsys.readouterr().err


def test_a_metric_that_differs_is_shown_and_is_no_difference_of_the_runs(
    tracker: MLflowTracker, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (tracked(tracker, f"metrics of the {name}") for name in ("first", "other"))
    for ref, loss in ((first, 0.5), (second, 0.25)):
        tracker.metrics(ref, [Metric("loss", loss, 0, 1.7e9)], 10)
    code, found = diff_of(capsys, f"run:{first.run_id}", f"run:{second.run_id}", "--tracking-uri", uri)
    assert (code, found["metrics"], found["config"]["changes"] if found["config"] else []) == (
        0,
        ["~ loss: 0.5 -> 0.25"],
        [],
    )


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize(
    "words", [[], ["one"], ["one", "two", "--last-good", "three"], ["one", "--last-good", "three"]]
)
def test_a_comparison_of_other_than_two_is_refused(
    uri: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", *words, "--tracking-uri", uri]) == 2
    assert "diff compares two: give OLD and NEW, or --last-good RUN" in capsys.readouterr().err
