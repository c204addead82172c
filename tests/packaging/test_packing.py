"""How content becomes archives: whole or as changes, for many processes at once, in either format."""

import dataclasses
import gzip
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time

import pytest
from packaging_cases import commit_files, lay, run_git, unpack

from nemo_airflow import GitArchivePackager, PatternPackager
from nemo_airflow.exceptions import PackagingError, SettingsError
from nemo_airflow.job import Archive, Package
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.archive import write_tar
from nemo_airflow.packaging.content import files_of, in_order
from nemo_airflow.packaging.packing import REMOVED
from nemo_airflow.runner import unpack as unpacking


@pytest.fixture
def repository(tmp_path):
    rng = random.Random(3)
    files = {f"pkg{n % 7}/file{n:03}.py": bytes(rng.choices(b"abcdefg \n", k=4000)) for n in range(200)}
    commit_files(tmp_path / "code", {**files, "train.py": "print(1)\n"})
    return tmp_path / "code"


@pytest.fixture
def packager(repository):
    return GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")


def members(store, archive):
    with tarfile.open(store.path(archive.digest, archive.format)) as tar:
        return [member.name for member in tar]


def test_a_changed_file_is_packed_alone_and_named_like_the_whole(repository, packager, store, unpacked, tmp_path):
    whole = packager.package(store)
    (repository / "train.py").write_text("print(2)\n")
    (repository / "pkg0" / "file000.py").unlink()
    changed = packager.package(store)
    assert changed.base == whole.digest
    assert changed.base_size == whole.size
    assert changed.size - changed.base_size < 500
    assert members(store, changed.archives[1]) == [REMOVED, "train.py"]
    elsewhere = PackageStore(tmp_path / "elsewhere")
    at_once = packager.package(elsewhere)
    assert not at_once.base
    assert at_once.digest == changed.digest
    assert unpacked(changed) == unpacked(at_once, store=elsewhere)
    commit_files(repository)
    committed = packager.package(store)
    assert (committed.digest, committed.base, committed.dirty) == (changed.digest, whole.digest, False)


def test_many_changes_are_packed_whole_and_become_the_base_of_later_ones(repository, packager, store):
    first = packager.package(store)
    for path in repository.glob("pkg[0-3]/*.py"):
        path.write_bytes(path.read_bytes()[::-1])
    second = packager.package(store)
    assert not second.base
    (repository / "train.py").write_text("print(2)\n")
    third = packager.package(store)
    assert third.base == second.digest
    run_git(repository, "checkout", "-q", ".")
    back = packager.package(store)
    assert dataclasses.replace(back, commit="") == dataclasses.replace(first, commit="")


def test_changes_are_not_made_of_a_base_that_is_gone(repository, packager, store, unpacked):
    first = packager.package(store)
    (repository / "train.py").write_text("print(2)\n")
    assert packager.package(store).base == first.digest
    store.path(first.digest).unlink()
    again = packager.package(store)
    assert not again.base
    assert unpacked(again)["train.py"] == (b"print(2)\n", False)


def test_notes_that_are_broken_or_gone_are_found_out_again(repository, packager, store, unpacked):
    first = packager.package(store)
    for notes in (store.folder / ".notes").glob("*.json"):
        notes.write_text("{broken")
    for index in (store.folder / ".notes").glob("*.index"):
        index.unlink()
    assert packager.package(store) == first
    shutil.rmtree(store.folder / ".notes")
    assert packager.package(store) == first


def test_a_file_that_changes_within_the_same_moment_and_size_is_seen(repository, packager, store, unpacked):
    packager.package(store)
    for number in range(10):
        (repository / "train.py").write_text(f"print({number})\n")
        assert unpacked(packager.package(store))["train.py"][0] == f"print({number})\n".encode()


def test_an_unchanged_repository_is_answered_by_one_git_process(repository, packager, store, tmp_path, monkeypatch):
    first = packager.package(store)
    log = tmp_path / "trace"
    (tmp_path / "bin").mkdir()
    real = shutil.which("git")
    lay(tmp_path / "bin", {"git": (f'#!/bin/sh\necho "$@" >>{log}\nexec {real} "$@"\n', 0o755)})
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert packager.package(store) == first
    calls = log.read_text().splitlines()
    assert len(calls) == 1
    assert " status " in calls[0]


@pytest.mark.parametrize("format", ["tar.gz", "tar.zst"])
def test_archives_are_read_by_the_usual_programs(repository, store, tmp_path, format):
    lay(
        repository, {"random.bin": os.urandom(9 << 20), "zeros.bin": bytes(9 << 20), "empty": "", "link": "-> train.py"}
    )
    package = PatternPackager(path=str(repository), format=format).package(store)
    assert package.format == format
    path = store.path(package.digest, format)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xf", path, "-C", tmp_path / "out"], check=True)
    diff = ["diff", "-r", "--no-dereference", "-x", ".git", repository, tmp_path / "out"]
    assert subprocess.run(diff, capture_output=True).stdout == b""
    if format == "tar.gz":
        # What is packed already is stored: it would take long, and shrink nothing.
        assert path.stat().st_size < 9.9 * (1 << 20)
        assert len(gzip.decompress(path.read_bytes())) > 18 << 20


def test_the_same_files_give_the_same_bytes_with_any_number_of_processors(repository, tmp_path, monkeypatch):
    files = in_order(files_of({f"{n}.bin": random.Random(n).randbytes(300_000) for n in range(20)}))
    written = []
    for processors in (1, 2, 7):
        monkeypatch.setattr(os, "cpu_count", lambda processors=processors: processors)
        with (tmp_path / "archive").open("wb") as file:
            write_tar(files, file)
        written.append((tmp_path / "archive").read_bytes())
    assert written[0] == written[1] == written[2]


def test_the_format_comes_from_the_packager_else_from_the_environment(repository, packager, store, monkeypatch):
    assert packager.package(store).format == "tar.gz"
    monkeypatch.setenv("NEMO_AIRFLOW_PACKAGE_FORMAT", "tar.zst")
    assert packager.package(store).format == "tar.zst"
    assert dataclasses.replace(packager, format="tar.gz").package(store).format == "tar.gz"
    monkeypatch.setenv("NEMO_AIRFLOW_PACKAGE_FORMAT", "zip")
    with pytest.raises(PackagingError, match=r"\$NEMO_AIRFLOW_PACKAGE_FORMAT='zip' is not one of tar\.gz, tar\.zst"):
        packager.package(store)


@pytest.mark.parametrize("kind", ["git", "pattern"])
def test_what_is_packed_already_is_taken_in_any_format_that_the_job_reads(repository, packager, store, unpacked, kind):
    if kind == "pattern":
        packager = PatternPackager(path=str(repository))
    first = packager.package(store)
    assert packager.package(store, reads_zstd=True) == first
    (repository / "train.py").write_text("print(2)\n")
    changed = packager.package(store, reads_zstd=True)
    assert (changed.base, changed.format) == (first.digest, "tar.gz")
    for file in repository.glob("pkg*/*"):
        file.write_bytes(file.read_bytes()[::-1])
    whole = packager.package(store, reads_zstd=True)
    assert (whole.base, whole.format) == ("", "tar.zst")
    elsewhere = packager.package(store)
    assert (elsewhere.format, elsewhere.digest) == ("tar.gz", whole.digest)
    assert unpacked(elsewhere) == unpacked(whole)
    # Which of the two is remembered depends on how soon after the files' last change each was packed.
    assert packager.package(store, reads_zstd=True) in (whole, elsewhere)


def test_zstd_is_not_chosen_where_nothing_writes_it(repository, packager, store, monkeypatch):
    monkeypatch.setattr("nemo_airflow.packaging.base.writes_zstd", lambda: False)
    assert packager.package(store, reads_zstd=True).format == "tar.gz"


def test_zstd_that_nothing_writes_is_said(repository, packager, store, monkeypatch, tmp_path):
    git = shutil.which("git")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("nemo_airflow.packaging.archive._zstd_module", lambda: None)
    with pytest.raises(SettingsError, match="install the Python package zstandard, or the program zstd"):
        dataclasses.replace(packager, format="tar.zst").package(store)


def test_a_package_of_before_is_still_read():
    old = {"digest": "d", "format": "tar.gz", "size": 3, "commit": "c", "dirty": False, "patch": "", "origin": ""}
    package = Package.from_json(old)
    assert package.archives == (Archive("d", "tar.gz", 3, "package.tar.gz"),)
    assert Package.from_json(package.to_json()) == package


def change_and_package(arguments):
    repository, store, number = arguments
    rng = random.Random(number)
    digests = []
    for _ in range(6):
        version = rng.randrange(4)
        packager = GitArchivePackager(path=str(repository), ref=f"v{version}")
        package = packager.package(PackageStore(store))
        digests.append((version, package.to_json()))
        time.sleep(rng.random() / 50)
    return digests


def test_many_processes_package_the_same_and_other_states_in_one_store(repository, store, tmp_path):
    expected = {}
    for version in range(4):
        commit_files(repository, {"train.py": f"version {version}", f"new{version}.py": "x" * 1000})
        run_git(repository, "tag", f"v{version}")
        expected[version] = GitArchivePackager(path=str(repository)).package(PackageStore(tmp_path / "other")).digest
    with multiprocessing.get_context("spawn").Pool(6) as pool:
        made = pool.map(change_and_package, [(repository, store.folder, number) for number in range(12)])
    for number, (version, package) in enumerate(each for some in made for each in some):
        assert package["digest"] == expected[version]
        if number % 6 == 0:
            shipped = unpack(Package.from_json(package), store, tmp_path / f"job{number}")
            assert shipped["train.py"] == (f"version {version}".encode(), False)
    assert not list(store.folder.rglob(".new-*"))


def edit_and_package(arguments):
    repository, store = arguments
    packager = GitArchivePackager(path=str(repository), uncommitted="include", untracked="include")
    return [packager.package(PackageStore(store)).to_json() for _ in range(5)]


def test_a_working_tree_that_changes_meanwhile_gives_states_that_were(repository, store, tmp_path):
    (repository / "train.py").write_text("state 0")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        waiting = pool.map_async(edit_and_package, [(repository, store.folder)] * 6)
        number = 0
        while not waiting.ready():
            number += 1
            (tmp_path / "new").write_text(f"state {number}")
            os.replace(tmp_path / "new", repository / "train.py")
            time.sleep(0.05)
        packages = [package for some in waiting.get() for package in some]
    states = {f"state {n}".encode() for n in range(number + 1)}
    for index, package in enumerate(packages[::5]):
        assert unpack(Package.from_json(package), store, tmp_path / f"job{index}")["train.py"][0] in states


HOSTILE = {
    "a member above the folder": (["../outside"], b""),
    "what is removed above the folder": ([REMOVED], b"\0../../outside"),
    "what is removed by way of a link": ([REMOVED], b"\0up/outside"),
    "no list of what is removed": (["file"], b""),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_changes_are_refused(tmp_path, case):
    names, removed = HOSTILE[case]
    work = tmp_path / "job" / "work"
    work.mkdir(parents=True)
    (work / "up").symlink_to("../..")
    (tmp_path / "outside").write_text("stays")
    (tmp_path / "job" / "outside").write_text("stays")
    with (tmp_path / "changes.tar.gz").open("wb") as file:
        write_tar(files_of(dict.fromkeys(names, removed)), file)
    with pytest.raises(unpacking.UnpackError):
        unpacking.unpack(str(tmp_path / "changes.tar.gz"), str(work), changes=True)
    assert (tmp_path / "outside").read_text() == (tmp_path / "job" / "outside").read_text() == "stays"


def test_links_that_lead_out_by_way_of_others_are_refused_when_unpacked(tmp_path):
    with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as tar:
        for name, target in (("a", "."), ("b", "a/../x"), ("deep/up", ".."), ("c", "deep/up/../../x")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    (tmp_path / "work").mkdir()
    with pytest.raises(unpacking.UnpackError, match="out of the package's folder"):
        unpacking.unpack(str(tmp_path / "package.tar.gz"), str(tmp_path / "work"))


@pytest.fixture(params=["modules", "program"])
def reader(request, monkeypatch):
    """Reads zstd with a module of Python's, or with the program."""
    if request.param == "program":
        for name in ("zstandard", "compression"):
            monkeypatch.setitem(sys.modules, name, None)
    return request.param


def test_zstd_is_unpacked_by_a_module_and_by_the_program(repository, store, unpacked, reader):
    assert unpacking.reads_zstd()
    packager = PatternPackager(path=str(repository), format="tar.zst")
    whole = packager.package(store)
    (repository / "train.py").unlink()
    (repository / "new.bin").write_bytes(bytes(100_000))
    changed = packager.package(store)
    assert changed.base == whole.digest
    plain = dataclasses.replace(packager, format="tar.gz")
    assert unpacked(changed) == unpacked(plain.package(store))


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_zstd_that_is_cut_off_is_refused(repository, store, tmp_path, reader, keep):
    package = PatternPackager(path=str(repository), format="tar.zst").package(store)
    data = store.path(package.digest, "tar.zst").read_bytes()
    cut = tmp_path / "package.tar.zst"
    cut.write_bytes(data[: int(len(data) * keep)])
    (tmp_path / "work").mkdir()
    with pytest.raises(unpacking.UnpackError, match=r"is incomplete|is not a package|cannot unpack the package"):
        unpacking.unpack(str(cut), str(tmp_path / "work"))


def test_nothing_that_reads_zstd_is_found_out(monkeypatch):
    for name in ("zstandard", "compression"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", "/nowhere")
    assert not unpacking.reads_zstd()


def test_zstd_that_nothing_reads_is_said(repository, store, tmp_path):
    package = PatternPackager(path=str(repository), format="tar.zst").package(store)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name in ('zstandard', 'compression'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "from nemo_airflow.runner.unpack import unpack, UnpackError\n"
        "try: unpack(sys.argv[2], sys.argv[3])\n"
        "except UnpackError as error: print(error)\n"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    (tmp_path / "work").mkdir()
    arguments = [sys.executable, "-c", code, root, str(store.path(package.digest, "tar.zst")), str(tmp_path / "work")]
    said = subprocess.run(arguments, env={"PATH": "/nowhere"}, capture_output=True, text=True)
    assert (
        "which this environment cannot read: use Python 3.14, install the package zstandard or the program zstd"
        in said.stdout
    )
    done = subprocess.run(arguments, env=dict(os.environ), capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    assert (tmp_path / "work" / "train.py").read_text() == "print(1)\n"
