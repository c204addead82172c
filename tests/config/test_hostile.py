"""Plans, files, overrides and names of somebody who means ill: each is refused, and nothing of it is imported."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "hostile"
REPOSITORY = Path(__file__).parents[2]
MANY = 100_000
LARGE = {
    "DIGITS": "9" * MANY,
    "OPENING": "[" * MANY,
    "CLOSING": "]" * MANY,
    "KEYS": '{"a": ' * MANY,
    "BRACES": "}" * MANY,
    "DASHES": "- " * MANY,
}


def cases(name):
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def texts(name):
    """Returns the cases of a file as texts, with what is too large for a file in them."""
    found = []
    for case in cases(name):
        if "root" in case:
            plan = {"version": 1, **{key: value for key, value in case.items() if key != "case"}}
            case = {"case": case["case"], "text": json.dumps(plan)}
        for word, text in LARGE.items():
            case["text"] = case["text"].replace(word, text)
        found.append(case)
    return found


READERS = {
    "plan": ("plans", "texts"),
    "text": ("plans", "texts"),
    "look": ("plans", "texts"),
    "job": ("plans",),
    "page": ("plans", "texts"),
    "yaml": ("yaml",),
    "override": ("overrides",),
    "conf": ("overrides",),
    "cli": ("names",),
    "file": ("yaml",),
    "allow": ("allow",),
}
ALL = [(reader, case) for reader, names in READERS.items() for name in names for case in cases(name)]
FITS = {(reader, case["case"]) for reader in ("override", "conf") for case in cases("overrides") if case.get("fits")}


@functools.cache
def read_all(reader):
    """Returns what came of each case of a reader, by the case; one process for all of them."""
    folder = ROOT[0] / reader
    folder.mkdir()
    given = folder / "cases.jsonl"
    found = [case for name in READERS[reader] for case in texts(name)]
    given.write_text("".join(f"{json.dumps(case)}\n" for case in found), encoding="utf-8")
    isolated = ["-I"] if reader == "job" else []
    done = subprocess.run(
        [sys.executable, *isolated, str(HERE / "probe.py"), reader, str(REPOSITORY), str(given)],
        cwd=folder,
        env={**os.environ, "NEMO_AIRFLOW_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "unlisted" not in done.stderr
    answers = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    assert len(answers) == len(found)
    return {answer["case"]: answer for answer in answers}


ROOT = []


@pytest.fixture(autouse=True)
def folder(tmp_path_factory):
    if not ROOT:
        ROOT.append(tmp_path_factory.mktemp("hostile"))


REFUSALS = {
    "plan": {"PlanError", "TargetNotAllowedError", "ParameterTypeError", "UnknownParameterError"},
    "text": {"PlanError", "TargetNotAllowedError", "ParameterTypeError", "UnknownParameterError"},
    "look": {"PlanError", "PermissionError"},
    "job": {"PlanError", "TargetNotAllowedError", "TargetNotImportableError"},
    "page": {"PermissionError"},
    "yaml": {"PlanError", "TargetNotAllowedError"},
    "override": {"OverrideError", "TargetNotAllowedError", "ParameterTypeError", "PlanError", "UnknownParameterError"},
    "conf": {"OverrideError", "TargetNotAllowedError", "ParameterTypeError", "PlanError", "UnknownParameterError"},
    "cli": {"exit 2"},
    "file": {"exit 2"},
    "allow": {"ValueError"},
}


@pytest.mark.parametrize(("reader", "case"), ALL, ids=lambda value: value if isinstance(value, str) else value["case"])
def test_what_is_hostile_is_refused_without_an_import(reader, case):
    answer = read_all(reader)[case["case"]]
    assert answer["events"] == []
    if (reader, case["case"]) in FITS:
        assert answer["error"] == ""
        return
    assert answer["error"] in REFUSALS[reader], answer
    assert "Traceback" not in answer["message"]
    assert len(answer["message"].partition("\n")[0]) < 2_000


def test_configured_prefixes_are_checked(monkeypatch):
    from nemo_airflow.config.plan import allow
    from nemo_airflow.exceptions import SettingsError

    monkeypatch.delenv(allow.VARIABLE, raising=False)
    assert allow.read_configured() == ()
    monkeypatch.setenv(allow.VARIABLE, " zoo., fractions:Fraction,shop.models.Net ")
    assert allow.read_configured() == ("zoo.", "fractions:Fraction", "shop.models.Net")
    for text, says in [
        ("os.", "'os.' would permit too much: of Python's own modules list single functions"),
        ("zoo.,builtins.", "'builtins.' would permit too much"),
        ("nemo_airflow.", "'nemo_airflow.' would permit too much: of this package list single functions"),
        ("zoo", "$NEMO_AIRFLOW_ALLOW: allow has 'zoo', which is neither a name"),
        ("zoo.,,", "allow has '', which is neither"),
    ]:
        monkeypatch.setenv(allow.VARIABLE, text)
        with pytest.raises(SettingsError) as caught:
            allow.read_configured()
        assert says in str(caught.value)


def test_what_is_configured_may_be_imported_by_plans_files_and_overrides(monkeypatch):
    from config_targets import Model, Optimizer, train

    from nemo_airflow import Config
    from nemo_airflow.config import apply_overrides, from_yaml
    from nemo_airflow.config import plan as plans
    from nemo_airflow.config.plan import allow
    from nemo_airflow.exceptions import TargetNotAllowedError

    plan = plans.to_plan(Config(Model, hidden=3))
    with pytest.raises(TargetNotAllowedError):
        plans.from_plan(plan, ())
    monkeypatch.setenv(allow.VARIABLE, "config_targets.")
    assert plans.from_plan(plan, ()) == Config(Model, hidden=3)
    assert from_yaml("{_target_: config_targets.Model, hidden: 3}") == Config(Model, hidden=3)
    changed = apply_overrides(Config(train, model=Config(Model, 1)), ["optimizer=config_targets:Optimizer(lr=1.0)"])
    assert changed.optimizer == Config(Optimizer, lr=1.0)


def test_names_on_the_command_line_are_ones_own_code_or_what_is_allowed(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from victim import Model\nfrom nemo_airflow import Config\nbase = Config(Model)\n"
    )
    command = [sys.executable, "-m", "nemo_airflow.cli", "plan"]
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{HERE}"}

    def run(name, **settings):
        done = subprocess.run(
            [*command, name], cwd=tmp_path, env={**env, **settings}, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    assert run("mine:base")[:2] == (0, "_target_: victim.Model\n")
    assert run("mine:Model")[0] == 2  # which is no config
    code, _, error = run("timeit:main")
    assert code == 2
    assert "timeit:main is not allowed here" in error
    assert "nor on $PYTHONPATH" in error
    code, _, error = run("fractions:Fraction", NEMO_AIRFLOW_ALLOW="fractions:Fraction")
    assert (code, "no config" in error or "not a Config" in error) == (2, True)
    code, _, error = run("mine:base", NEMO_AIRFLOW_ALLOW="sys.")
    assert code == 2
    assert error.startswith("nemo-airflow: $NEMO_AIRFLOW_ALLOW: 'sys.' would permit too much")
