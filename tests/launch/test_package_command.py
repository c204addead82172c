"""What would be shipped is said before, file by file with the reason, and is what is shipped then."""

import json
from pathlib import Path

from test_launch import run_of

from nemo_airflow.cli import main
from nemo_airflow.launch.records import Records

PATTERNS = "kind: pattern\ninclude: ['*.py']\nexclude: ['test_*', '.git', '/old/']"


def explained(capsys, *arguments):
    capsys.readouterr()
    assert main(["package", *arguments, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_package_is_explained_as_it_is_shipped_then(project, capsys):
    own = Path(f"{project}.py")
    own.write_text(own.read_text() + "\nMORE = 1\n")
    Path("helper.py").write_text("VALUE = 7\n" * 1000)
    Path(".gitignore").write_text("*.log\n/.gitignore\n/data/\n")
    Path("run.log").write_text("line\n")
    Path("data").mkdir()
    Path("data/rows").write_text("1\n")
    found = explained(capsys, f"{project}:small")
    assert [(file["path"], file["why"]) for file in found["files"]] == [
        ("helper.py", "git does not track it, and untracked='include'"),
        (f"{project}.py", "tracked, with uncommitted changes"),
    ]
    assert found["files"][0]["size"] == 10_000
    assert {each["path"]: each["why"] for each in found["left_out"]} == dict.fromkeys(
        ("data/", "run.log", ".gitignore"), "git ignores it"
    )
    assert (found["dirty"], found["since"], found["missing"]) == (True, "", [])
    assert main(["run", f"{project}:small"]) == 0
    run = run_of(Records().find("last"))[0]
    assert run.data.tags["nemo_airflow.package_digest"] == found["digest"]
    assert explained(capsys)["packed_size"] is not None
    Path("helper.py").unlink()
    Path("other.py").write_text("VALUE = 8\n")
    own.write_text(own.read_text() + "\n")
    changed = explained(capsys)
    assert changed["since"] == found["digest"]
    assert [changed[name] for name in ("added", "changed", "removed")] == [
        ["other.py"],
        [f"{project}.py"],
        ["helper.py"],
    ]


def test_patterns_and_what_they_leave_out_are_named(project, capsys):
    for name in ("test_it.py", "notes.md", "old/away.py"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("x\n")
    found = explained(capsys, "--packager", PATTERNS, f"{project}:small")
    assert [(file["path"], file["why"]) for file in found["files"]] == [(f"{project}.py", "include has '*.py'")]
    assert {each["path"]: each["why"] for each in found["left_out"]} == {
        ".git/": "exclude has '.git'",
        "test_it.py": "exclude has 'test_*'",
        "notes.md": "nothing of include matches it",
        "old/": "exclude has '/old/'",
    }
    parts = "kind: pattern\ninclude: ['old/*']\nexclude: []"
    assert main(["package", f"{project}:small", "--packager", parts]) == 0
    shown = capsys.readouterr().out
    assert "1 file, 2 bytes\n  2 bytes  old/away.py  include has 'old/*'\n" in shown
    assert f"not in it: module {project} of the config, which has to be installed where the job runs" in shown


def test_that_nothing_is_shipped_is_said(project, capsys):
    assert main(["package", "--packager", "none"]) == 1
    assert "no package: the job imports the code from where it is" in capsys.readouterr().err
