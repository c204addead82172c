"""What stands beside the code is true: versions, the checks of each commit, the forms for reports."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import yaml
from packaging.specifiers import SpecifierSet
from packaging.version import Version

import nemo_airflow

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))


def recipe(target):
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]


def test_hooks_of_a_commit_are_the_checks_of_make_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = [" ".join(line.split()) for line in recipe("lint").replace("$(BIN)", ".venv/bin").splitlines()]
    assert len(hooks) == len(checks)
    assert [check for check in checks if not any(check.startswith(hook["entry"]) for hook in hooks)] == []


def test_the_version_is_said_twice_and_the_same():
    part = rf"^## \[({re.escape(nemo_airflow.__version__)}|Unreleased)\]"
    assert PROJECT["version"] == nemo_airflow.__version__
    assert re.search(part, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_form_for_faults_offers_every_back_end():
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    [offered] = [part["attributes"]["options"] for part in form["body"] if part["type"] == "dropdown"]
    assert set(offered) == {each.name for each in entry_points(group="nemo_airflow.executors")} | {
        "none",
        "one of your own",
    }


def test_the_table_of_supported_versions_is_that_of_the_project_and_of_its_checks():
    page = (ROOT / "docs/versions.md").read_text()
    rows = {name: (low, high) for name, low, high in re.findall(r"^\| (.+?) \| ([\d.]+) \| ([\d.]+) \|$", page, re.M)}
    tried = {target: re.search(r"versions\.sh \w+ ([\d.]+)", recipe(target))[1] for target in ("lowest", "newest")}
    assert rows["Python of Airflow"] == (tried["lowest"], tried["newest"])
    assert PROJECT["requires-python"] == f">={tried['lowest']}"
    named = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text]
    assert (named[0], named[-1]) == (tried["lowest"], tried["newest"])
    for row, package in (("Apache Airflow", "apache-airflow"), ("MLflow, client", "mlflow-skinny")):
        [bound] = [text for text in PROJECT["dependencies"] if re.match(rf"{package}[><=]", text)]
        assert Version(rows[row][0]) in SpecifierSet(bound.removeprefix(package)), row
        assert rows[row][1] == PINNED[package], row
