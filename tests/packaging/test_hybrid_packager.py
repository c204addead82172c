"""Several packagers in one package."""

import pytest
from packaging_cases import lay

from nemo_airflow import GitArchivePackager, HybridPackager, PatternPackager
from nemo_airflow.exceptions import PackagingError


@pytest.fixture
def folder(tmp_path):
    lay(tmp_path / "code", {"train.py": "print(1)\n", "pkg/data/table.csv": "1,2\n", "notes.txt": "n"})
    return tmp_path / "code"


def test_several_packagers_ship_into_folders_of_one_package(folder, store, commit, tmp_path, contents):
    one = commit(tmp_path / "one", {"train.py": "one", "lib/a.py": "a"})
    commit(tmp_path / "two", {"util.py": "two"})
    (tmp_path / "one" / "train.py").write_text("changed")
    package = HybridPackager(
        sub_packagers={
            "": GitArchivePackager(path=str(tmp_path / "one"), uncommitted="include"),
            "vendor/two": GitArchivePackager(path=str(tmp_path / "two")),
            "conf": [
                PatternPackager(path=str(folder), include=["*.txt"]),
                PatternPackager(path=str(folder), include=["*.csv"]),
            ],
        }
    ).package(store)
    assert contents(package) == {
        "train.py": b"changed",
        "lib/a.py": b"a",
        "vendor/two/util.py": b"two",
        "conf/notes.txt": b"n",
        "conf/pkg/data/table.csv": b"1,2\n",
    }
    assert package.commit == one
    assert package.dirty
    assert package.patch.startswith(f"# part 0: the root, of a repository without origin at {one}\n")
    assert [(part["prefix"], part["kind"]) for part in package.parts] == [
        ("", "git"), ("vendor/two", "git"), ("conf", "pattern"), ("conf", "pattern"),
    ]  # fmt: skip
    assert type(package).from_json(package.to_json()) == package


def test_the_patch_of_several_repositories_applies_where_the_package_is_laid_out(
    store, commit, git, tmp_path, contents
):
    commit(tmp_path / "one", {"train.py": "one\n", "gone.py": "gone\n"})
    commit(tmp_path / "two", {"src/lib/é a.py": "two\n", "src/data.bin": "x", "readme.md": "not shipped\n"})
    packager = HybridPackager(
        sub_packagers={
            "": GitArchivePackager(path=str(tmp_path / "one"), uncommitted="include", untracked="include"),
            "./vendor": HybridPackager(
                sub_packagers={
                    "two é": GitArchivePackager(path=str(tmp_path / "two"), subpath="src", uncommitted="include"),
                }
            ),
        }
    )
    before = contents(packager.package(store))
    (tmp_path / "one" / "train.py").write_text("changed\n")
    (tmp_path / "one" / "new.py").write_text("# part 1: no section\n")
    (tmp_path / "one" / "gone.py").unlink()
    (tmp_path / "two" / "src" / "lib" / "é a.py").write_text("changed too\n")
    (tmp_path / "two" / "src" / "data.bin").write_bytes(bytes(range(256)))
    (tmp_path / "two" / "readme.md").write_text("changed, and not shipped\n")
    package = packager.package(store)
    assert [(part["prefix"], part["subpath"]) for part in package.parts] == [("", ""), ("vendor/two é", "src")]
    lay(tmp_path / "laid", before)
    (tmp_path / "p.diff").write_text(package.patch)
    git(tmp_path / "laid", "apply", str(tmp_path / "p.diff"))
    after = contents(package)
    laid = {str(path.relative_to(tmp_path / "laid")): path for path in (tmp_path / "laid").rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in laid.items()} == after
    assert after["vendor/two é/lib/é a.py"] == b"changed too\n"


def test_a_file_of_two_packagers_is_refused_with_both_names(folder, store):
    packagers = {
        "a/b": PatternPackager(path=str(folder), include=["*.txt"]),
        "a": [PatternPackager(path=str(folder)), PatternPackager(path=str(folder), include=["train.py"])],
    }
    with pytest.raises(PackagingError, match=r"a/train\.py is shipped by two packagers, pattern at 'a' and pattern at"):
        HybridPackager(sub_packagers=packagers).package(store)
    packagers = {
        "": PatternPackager(path=str(folder), include=["train.py"]),
        "train.py": PatternPackager(path=str(folder), include=["*.txt"]),
    }
    with pytest.raises(PackagingError, match=r"train\.py is a file of pattern at '' and a folder of pattern at 'train"):
        HybridPackager(sub_packagers=packagers).package(store)


@pytest.mark.parametrize(
    ("packagers", "message"),
    [
        ({}, "has no sub_packagers"),
        ({"a": "b"}, "is not a ContentPackager"),
        ({"../a": PatternPackager()}, "without '..'"),
    ],
)
def test_wrong_parts_are_refused(packagers, message):
    with pytest.raises(PackagingError, match=message):
        HybridPackager(sub_packagers=packagers)


def test_a_hybrid_is_shown_with_its_parts():
    shown = HybridPackager(sub_packagers={"": GitArchivePackager(), "c": [PatternPackager(include=["*.py"])]}).to_json()
    assert shown["sub_packagers"][""][0]["kind"] == "git"
    assert list(shown["sub_packagers"]["c"][0]["include"]) == ["*.py"]
