"""``make bench``: what a package costs, beside the raw tools and NeMo-Run's packagers.

Two repositories: 5,000 files of 30 MB, 50,000 of 1 GB. All in one run, interleaved, medians of several; the ratios are
what counts, not the seconds. Ours are measured in a warm process, as in a worker; each other in one of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from run import SCRATCH, peer_environment

HERE = Path(__file__).parent
SIZES = {"5,000 files, 30 MB": (5_000, 30_000_000, 7), "50,000 files, 1 GB": (50_000, 1_000_000_000, 3)}
COLUMNS = ("cold", "unchanged", "one file changed", "one file committed")

Measured = Iterator[tuple[str, float, int]]
"""Column, seconds, and bytes to send."""


def main() -> None:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-peer", action="store_true", help="leave NeMo-Run out")
    parser.add_argument("--small", action="store_true", help="the smaller repository only")
    parser.add_argument("--only-versions", action="store_true", help="the versions of a git bundle only")
    options = parser.parse_args()
    SCRATCH.mkdir(exist_ok=True)
    for title, (count, total, repeat) in list(SIZES.items())[: 1 if options.small else 2]:
        with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
            repository = Path(scratch, "repository")
            make_repository(repository, count, total)
            if not options.only_versions:
                measure(title, repository, Path(scratch), repeat, peer=not options.no_peer)
            measure_versions(title, repository, Path(scratch), repeat)


def measure(title: str, repository: Path, scratch: Path, repeat: int, *, peer: bool) -> None:
    """Measures all contenders on one repository, and prints the table."""
    contenders: dict[str, Callable[[], Measured]] = {
        "`git archive \\| gzip -1`": lambda: raw(repository, scratch, "gzip -1"),
        "`git status`": lambda: status(repository),
        "`GitArchivePackager`": lambda: ours(repository, scratch, "git", "tar.gz"),
        "`PatternPackager`": lambda: ours(repository, scratch, "pattern", "tar.gz"),
    }
    if shutil.which("zstd"):
        contenders["`git archive \\| zstd -1`"] = lambda: raw(repository, scratch, "zstd -1 -q")
        contenders["`GitArchivePackager`, `tar.zst`"] = lambda: ours(repository, scratch, "git", "tar.zst")
    if shutil.which("rsync"):
        contenders["`rsync -a` to a folder of this disk"] = lambda: rsync(repository, scratch)
    if peer:
        python = peer_environment()
        for kind in ("GitArchivePackager", "PatternPackager"):
            contenders[f"NeMo-Run's `{kind}`"] = lambda kind=kind: nemo_run(python, kind, repository, scratch)
    times: dict[str, dict[str, list[float]]] = {name: {} for name in contenders}
    sent: dict[str, dict[str, int]] = {name: {} for name in contenders}
    for turn in range(repeat):
        for name, contender in contenders.items():
            print(f"\r{title}: turn {turn + 1} of {repeat}: {name:50}", end="", file=sys.stderr, flush=True)
            for column, seconds, size in contender():
                times[name].setdefault(column, []).append(seconds)
                sent[name][column] = size
    print(file=sys.stderr)
    report(title, repeat, times, sent)


def measure_versions(title: str, repository: Path, scratch: Path, repeat: int) -> None:
    """Measures the next version of a git bundle, in a checkout of its own, after one file was committed."""
    os.environ |= {"AIRFLOW_HOME": str(scratch / "airflow"), "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    from nemo_airflow import GitArchivePackager, PatternPackager

    packagers = {"git": GitArchivePackager(format="tar.gz"), "pattern": PatternPackager(format="tar.gz")}
    names = ["`git archive \\| gzip -1`", *(f"`{type(packager).__name__}`" for packager in packagers.values())]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    sizes: dict[str, int] = {}
    for turn in range(repeat):
        print(f"\r{title}: versions, turn {turn + 1} of {repeat}{'':50}", end="", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            os.environ["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"] = folder
            for name, found in zip(names, next_version(repository, scratch, folder, packagers), strict=True):
                seconds[name].append(found[0])
                sizes[name] = found[1]
    print(file=sys.stderr)
    base = statistics.median(seconds[names[0]])
    print(f"\n{title}, the next version of a git bundle, medians of {repeat}\n\n| | seconds | ratio | to send |")
    print("|---|--:|--:|--:|")
    for name in names:
        median = statistics.median(seconds[name])
        print(f"| {name} | {median:.3f} | {median / base:.2f} | {human(sizes[name])} |")


def next_version(
    repository: Path, scratch: Path, folder: str, packagers: dict[str, Any]
) -> Iterator[tuple[float, int]]:
    """Yields seconds and bytes to send, of git's own archive and of each packager."""
    from nemo_airflow.hooks.packaging import PackagingHook
    from nemo_airflow.packaging import PackageStore

    hooks = [PackagingHook(each, PackageStore(Path(folder, kind))) for kind, each in packagers.items()]
    before = bundle_at(repository)
    for hook in hooks:
        hook.package(before)
    with changed(repository, commit=True):
        after = bundle_at(repository)
        yield next((seconds, size) for _, seconds, size in raw(repository, scratch, "gzip -1"))
        for hook in hooks:
            begun = time.perf_counter()
            package = hook.package(after)
            yield time.perf_counter() - begun, package.size - package.base_size


def bundle_at(repository: Path) -> Any:
    """Returns a task's context with Airflow's git bundle at the repository's commit, checked out."""
    from airflow.providers.git.bundles.git import GitDagBundle

    version, branch = (
        subprocess.run(["git", "-C", str(repository), "rev-parse", *what, "HEAD"], check=True, capture_output=True)
        .stdout.decode()
        .strip()
        for what in ([], ["--abbrev-ref"])
    )
    bundle = GitDagBundle(name="bench", tracking_ref=branch, repo_url=str(repository), version=version)
    bundle.initialize()
    return {"ti": types.SimpleNamespace(bundle_instance=bundle)}


def report(title: str, repeat: int, times: dict[str, dict[str, list[float]]], sent: dict[str, dict[str, int]]) -> None:
    """Prints a table of Markdown: seconds, and bytes to send."""
    base = statistics.median(next(iter(times.values()))["cold"])
    print(f"\n{title}, medians of {repeat}, seconds and bytes to send\n")
    print(f"| | {COLUMNS[0]} | ratio | {' | '.join(COLUMNS[1:])} |")
    print(f"|---|--:|--:|{'--:|' * len(COLUMNS[1:])}")
    for name, columns in times.items():
        cells = []
        for column in COLUMNS:
            if column in columns:
                median = statistics.median(columns[column])
                cells.append(f"{median:.3f}, {human(sent[name][column])}")
                if column == "cold":
                    cells.append(f"{median / base:.2f}")
            else:
                cells += ["", ""] if column == "cold" else [""]
        print(f"| {name} | {' | '.join(cells)} |")


def ours(repository: Path, scratch: Path, kind: str, format: str) -> Measured:
    """A packager of ours, with a store of its own."""
    from nemo_airflow import GitArchivePackager, PatternPackager
    from nemo_airflow.packaging import PackageStore

    packager = (
        GitArchivePackager(path=str(repository), uncommitted="include", untracked="include", format=format)
        if kind == "git"
        else PatternPackager(path=str(repository), format=format)
    )
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        store = PackageStore(Path(folder))

        def timed() -> tuple[float, object]:
            begun = time.perf_counter()
            package = packager.package(store)
            return time.perf_counter() - begun, package

        seconds, first = timed()
        yield "cold", seconds, first.size
        time.sleep(2.1)  # what was changed just now is looked at again
        timed()
        seconds, again = timed()
        assert again == first
        yield "unchanged", seconds, 0
        with changed(repository):
            seconds, package = timed()
            yield "one file changed", seconds, package.size - package.base_size
        if kind == "git":
            with changed(repository, commit=True):
                seconds, package = timed()
                yield "one file committed", seconds, package.size - package.base_size


def raw(repository: Path, scratch: Path, packer: str) -> Measured:
    """What git and a packer do, the same each time."""
    target = scratch / "raw"
    begun = time.perf_counter()
    subprocess.run(f"git -C {repository} archive HEAD | {packer} >{target}", shell=True, check=True)
    yield "cold", time.perf_counter() - begun, target.stat().st_size
    target.unlink()


def status(repository: Path) -> Measured:
    """What git takes to see that nothing has changed."""
    subprocess.run(["git", "-C", str(repository), "status", "--porcelain"], check=True, capture_output=True)
    begun = time.perf_counter()
    subprocess.run(["git", "-C", str(repository), "status", "--porcelain"], check=True, capture_output=True)
    yield "unchanged", time.perf_counter() - begun, 0


def rsync(repository: Path, scratch: Path) -> Measured:
    """Copies the working tree."""
    target = scratch / "copy"
    command = ["rsync", "-a", "--exclude", "/.git", f"{repository}/", f"{target}/", "--stats"]

    def timed() -> tuple[float, int]:
        begun = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        size = next(line.split(":")[1] for line in said.splitlines() if line.startswith("Total bytes sent"))
        return time.perf_counter() - begun, int(size.replace(",", ""))

    yield "cold", *timed()
    yield "unchanged", *timed()
    with changed(repository):
        yield "one file changed", *timed()
    shutil.rmtree(target)


def nemo_run(python: Path, kind: str, repository: Path, scratch: Path) -> Measured:
    """NeMo-Run packs anew for each experiment."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        command = [str(python), str(HERE / "nemo_run_packages.py"), kind, str(repository), folder]
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**env, "HOME": folder})
        seconds, size = done.stdout.split()[-2:]
    yield "cold", float(seconds), int(size)


class changed:
    """A file of the repository is other, for a while; committed on wish."""

    def __init__(self, repository: Path, *, commit: bool = False) -> None:
        self._repository = repository
        self._file = next(repository.glob("pkg00/mod00/*.py"))
        self._commit = commit

    def __enter__(self) -> None:
        self._before = self._file.read_bytes()
        self._file.write_bytes(self._before + f"# {time.time_ns()}\n".encode())
        if self._commit:
            git(self._repository, "commit", "-qam", "one file")

    def __exit__(self, *_: object) -> None:
        if self._commit:
            git(self._repository, "reset", "-q", "--hard", "HEAD~1")
        self._file.write_bytes(self._before)


def make_repository(folder: Path, count: int, total: int) -> None:
    """Makes a repository of text files of different sizes, in 1,000 folders, packed as a clone is."""
    rng = random.Random(7)
    words = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz_", k=rng.randint(3, 10))) for _ in range(4000)]
    for number in range(count):
        path = folder / f"pkg{number % 40:02}" / f"mod{number // 40 % 25:02}" / f"file{number:05}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        lines, size, wanted = [], 0, total / count * rng.uniform(0.2, 1.8)
        while size < wanted:
            lines.append(b"    " * rng.randint(0, 3) + b" ".join(rng.choices(words, k=rng.randint(2, 12))) + b"\n")
            size += len(lines[-1])
        path.write_bytes(b"".join(lines))
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    git(folder, "-c", "pack.window=0", "gc", "-q")


def git(folder: Path, *arguments: str) -> None:
    """Runs git in the repository."""
    who = ["-c", "user.name=bench", "-c", "user.email=bench@example.invalid", "-c", "gc.auto=0"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True)


def human(size: float) -> str:
    """Returns a number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


if __name__ == "__main__":
    main()
