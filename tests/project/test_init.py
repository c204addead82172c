"""A new project: what is written, that its own tests pass, and what is refused."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest
import yaml

from nemo_airflow.cli import init, main

MODULES = ("trainer", *init.TEMPLATES, *(f"test_{name}" for name in init.TEMPLATES))


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "t")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "t@localhost")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("template", init.TEMPLATES)
def test_projects_own_tests_pass_and_its_files_are_valid(template, here, monkeypatch, capsys, run_task):
    assert main(["init", "my-lines", "--template", template]) == 0
    printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert printed == ["cd my-lines", *init.COMMANDS]
    folder = here / "my-lines"
    readme = (folder / "README.md").read_text()
    assert "\n".join(init.COMMANDS) in readme
    assert len(readme.splitlines()) <= 30
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    common = {".gitignore", ".github/workflows/test.yml", "README.md", "dags/trainer.py", "pyproject.toml"}
    assert files == {*common, f"dags/{template}.py", f"tests/test_{template}.py"}
    assert tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"] == "my-lines"
    steps = yaml.safe_load((folder / ".github/workflows/test.yml").read_text())["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step][1:3] == ["nemo-airflow validate dags", "pytest"]
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,W,B,UP"]
    subprocess.run([*ruff, "."], cwd=folder, check=True)

    monkeypatch.chdir(folder)
    subprocess.run(["bash", "-euc", init.COMMANDS[0]], check=True)
    for name in ("dags", "tests"):
        monkeypatch.syspath_prepend(folder / name)
    assert main(["validate", "dags"]) == 0
    tests = vars(importlib.import_module(f"test_{template}"))
    ran = [
        test(run_task) if test.__code__.co_argcount else test() for name, test in tests.items() if name[:5] == "test_"
    ]
    assert len(ran) >= 2


def test_project_is_written_into_the_current_folder_if_it_has_only_a_repository(here, monkeypatch, capsys):
    (here / "lines" / ".git").mkdir(parents=True)
    monkeypatch.chdir(here / "lines")
    assert main(["init"]) == 0
    assert 'DAG(\n    "lines"' in (here / "lines/dags/train.py").read_text()
    assert "The project lines is here." in capsys.readouterr().out


def test_the_page_shows_what_is_printed_and_the_test_that_is_written(here, capsys):
    page = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    main(["init", "lines"])
    assert f"```text\n$ nemo-airflow init lines\n{capsys.readouterr().out}```" in page
    assert f"```python\n# tests/test_train.py\n{(here / 'lines/tests/test_train.py').read_text()}```" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["My Project"], "'My Project' is not a name of a project: choose another"),
        (["My Project"], "such as my-project"),
        (["../up"], "'../up' is not a name"),
        (["7"], "such as my-project"),
        (["full"], "full is not empty, and nothing is overwritten: it has a, b, c and 2 more"),
        (["file"], "file is a file"),
        (["new", "--template", "swep"], "there is no template 'swep'; did you mean 'sweep'?"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line_and_nothing_is_written(here, capsys, arguments, message):
    (here / "full").mkdir()
    for name in "abcde":
        (here / "full" / name).touch()
    (here / "file").touch()
    before = sorted(here.rglob("*"))
    assert main(["init", *arguments]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("nemo-airflow: ")
    assert message in line
    assert sorted(here.rglob("*")) == before
