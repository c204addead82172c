"""Packages of what patterns choose, on real folders."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging_cases import commit_files, lay, run_git, tree, unpack

from nemo_airflow import GitArchivePackager, PatternPackager
from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging import PackageStore
from nemo_airflow.packaging.bases import Bases
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import pack


@pytest.fixture
def folder(tmp_path):
    lay(
        tmp_path / "code",
        {
            "train.py": "print(1)\n",
            "pkg/net.py": "x = 1\n",
            "pkg/data/table.csv": "1,2\n",
            "pkg/__pycache__/net.pyc": "not wanted",
            "notes.txt": "n",
            "run.sh": (b"#!/bin/sh\n", 0o755),
            "link.py": "-> pkg/net.py",
            ".git/config": "not wanted",
        },
    )
    return tmp_path / "code"


def test_all_files_are_shipped_but_gits_and_pythons_own(folder, store, unpacked):
    package = PatternPackager(path=str(folder)).package(store)
    shipped = unpacked(package)
    assert set(shipped) == {"train.py", "pkg/net.py", "pkg/data/table.csv", "notes.txt", "run.sh", "link.py"}
    assert shipped["run.sh"] == (b"#!/bin/sh\n", True)
    assert shipped["train.py"] == (b"print(1)\n", False)
    assert shipped["link.py"] == "-> pkg/net.py"


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.py"], ["link.py"], {"train.py", "pkg/net.py"}),
        (["/*.py"], ["link.py"], {"train.py"}),
        (["pkg/"], ["*.pyc"], {"pkg/net.py", "pkg/data/table.csv"}),
        (["*", "!*.txt"], ["pkg", ".git", "*.py"], {"run.sh"}),
        (["pkg/**/*.csv"], [], {"pkg/data/table.csv"}),
    ],
)
def test_patterns_are_those_of_gitignore(folder, store, contents, include, exclude, expected):
    package = PatternPackager(path=str(folder), include=include, exclude=exclude).package(store)
    assert set(contents(package)) == expected


def test_the_same_files_have_the_digest_that_git_gives_them(folder, store, commit):
    os.rename(folder / ".git", folder.parent / "elsewhere")
    lay(folder, {".gitignore": "__pycache__/\n"})
    by_pattern = PatternPackager(path=str(folder)).package(store)
    run_git(folder, "init", "-q")
    commit(folder)
    assert GitArchivePackager(path=str(folder)).package(store).digest == by_pattern.digest


def test_a_changed_file_is_seen_and_an_unchanged_one_not_read(folder, store, contents):
    packager = PatternPackager(path=str(folder), include=["*.py"])
    first = packager.package(store)
    os.utime(folder / "train.py")
    assert packager.package(store) == first
    (folder / "train.py").write_text("print(2)\n")
    second = packager.package(store)
    assert second.digest != first.digest
    assert contents(second)["train.py"] == b"print(2)\n"


@pytest.mark.parametrize("change", [b"print(2)\n", b"longer than before", b""])
def test_a_file_that_changes_between_the_look_and_the_packing_is_refused(folder, store, change):
    with PatternPackager(path=str(folder), include=["train.py"]).content(None, Notes(store.folder, "")) as content:
        (folder / "train.py").write_bytes(change)
        with pytest.raises(PackagingError, match=r"train\.py changed during packaging: package again"):
            pack(content, store, Bases(store, {}, ""), ("tar.gz",), 1 << 30)
    assert not list(store.folder.rglob("*.tar.gz"))


def test_the_bundles_folder_is_taken_where_no_path_is_given(folder, store, contents):
    assert set(contents(PatternPackager(include=["*.txt"]).package(store, root=folder))) == {"notes.txt"}
    with pytest.raises(PackagingError, match="has no path"):
        PatternPackager().package(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "{tmp}/nowhere"}, "is not a folder"),
        ({"include": ["*.rs"]}, r"no file of .* matches include=\['\*\.rs'\]"),
        ({"include": "*.py"}, "give a list of patterns"),
        ({"include": ["*"], "exclude": ["a", "!"]}, "exclude="),
    ],
)
def test_bad_input_is_one_clear_line(folder, store, tmp_path, options, message):
    options = {"path": str(folder), **options}
    options["path"] = options["path"].replace("{tmp}", str(tmp_path))
    with pytest.raises(PackagingError, match=message) as caught:
        PatternPackager(**options).package(store)
    assert "\n" not in str(caught.value)


def test_a_special_file_is_refused_by_name(folder, store):
    os.mkfifo(folder / "pipe")
    with pytest.raises(PackagingError, match="pipe is neither a file nor a link"):
        PatternPackager(path=str(folder)).package(store)


@pytest.mark.parametrize(
    "links",
    [
        {"bad": "-> /etc/passwd"},
        {"bad": "-> ../outside"},
        {"pkg/up": "-> ..", "bad": "-> pkg/up/../outside"},
        {"a": "-> b/../..", "b": "-> pkg/data"},
    ],
)
def test_links_that_lead_out_are_refused_also_by_way_of_others(folder, store, links):
    lay(folder, links)
    if "a" in links:  # stays within: pkg/data/../.. is the root itself
        PatternPackager(path=str(folder)).package(store)
        lay(folder, {"c": "-> a/.."})
    with pytest.raises(PackagingError, match=r"link (bad|c) points to .*, outside the package"):
        PatternPackager(path=str(folder)).package(store)


def test_links_in_a_circle_lead_nowhere(folder, store, unpacked):
    lay(folder, {"one": "-> two", "two": "-> one"})
    assert unpacked(PatternPackager(path=str(folder)).package(store))["one"] == "-> two"


def test_too_much_is_refused_and_the_largest_are_named(folder, store):
    lay(folder, {f"big{n:02}.bin": bytes(1000 + n) for n in range(12)})
    with pytest.raises(PackagingError) as caught:
        PatternPackager(path=str(folder), max_size=8 << 10).package(store)
    assert "more than max_size=8 KiB; the largest: big11.bin 1011 bytes, big10.bin" in str(caught.value)
    assert "big02.bin" in str(caught.value)
    assert "big01.bin" not in str(caught.value)
    assert not list(store.folder.rglob("*.tar.gz"))


NAMES = st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map("/".join).map(os.fsencode)
    | st.binary(min_size=1, max_size=120).filter(
        lambda name: not any(part in (b"", b".", b"..") for part in name.split(b"/")) and b"\0" not in name
    ),
    st.tuples(st.binary(max_size=200), st.sampled_from([0o644, 0o755])),
    min_size=1,
    max_size=6,
).filter(lambda files: not any(b.startswith(a + b"/") for a in files for b in files))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=FILES, second=FILES, format=st.sampled_from(["tar.gz", "tar.zst"]))
def test_any_files_come_back_as_they_were_whole_or_as_changes(tmp_path_factory, first, second, format):
    folder = tmp_path_factory.mktemp("any")
    stores = [PackageStore(folder / name) for name in ("one", "two")]
    padding = {b"padding.bin": (bytes(300_000), 0o644)}  # so that changes are worth packing alone
    digests = []
    for number, files in enumerate((first, second)):
        root = folder / "code"
        shutil.rmtree(root, ignore_errors=True)
        wanted = {os.fsdecode(name): what for name, what in {**files, **padding}.items()}
        if any(name.startswith("padding.bin/") for name in wanted):
            return
        lay(root, wanted)
        packager = PatternPackager(path=str(root), exclude=[], format=format)
        package = packager.package(stores[0])
        digests.append(package.digest)
        assert bool(package.base) == (number == 1 and digests[0] != digests[1])
        assert unpack(package, stores[0], folder / f"a{number}") == tree(root)
        whole = packager.package(stores[1]) if number else package
        assert whole.digest == package.digest
        assert not whole.base
    assert (digests[0] == digests[1]) == (first == second)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=FILES.filter(lambda files: not any(b"git" in name.lower() for name in files)))
def test_any_files_have_the_digest_that_git_gives_them(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("any")
    lay(folder / "code", {os.fsdecode(name): what for name, what in files.items()})
    by_pattern = PatternPackager(path=str(folder / "code"), exclude=[".git"]).package(PackageStore(folder / "one"))
    run_git(folder / "code", "init", "-q")
    commit_files(folder / "code")
    by_git = GitArchivePackager(path=str(folder / "code")).package(PackageStore(folder / "two"))
    assert by_git.digest == by_pattern.digest
