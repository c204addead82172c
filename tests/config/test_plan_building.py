"""Building a plan as the job does: under an allow-list, by every Python that a job may have."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from config_targets import Color, Model, double

from nemo_airflow import Config, Partial, Script
from nemo_airflow.config import plan as plans
from nemo_airflow.language import errors
from nemo_airflow.language.plan.contents import targets_in
from nemo_airflow.runner import plan as runner

ALLOW = ("config_targets.",)
REPOSITORY = Path(__file__).parents[2]


def working_pythons():
    """Returns the interpreters at hand that start: a version manager puts in names for some that do not."""
    found = {}
    names = [f"python3.{minor}" for minor in range(9, 15)]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    kept = [path for name in names for path in root.glob(f"versions/*/bin/{name}")]
    for name in (sys.executable, *names, *kept):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            found.setdefault(Path(path).resolve(), path)
    return list(found.values())


def plan_of(root):
    return {"version": 1, "root": root}


def error_of(make, kind):
    with pytest.raises(kind) as caught:
        make()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("allow", [["config_targets."], ["config_targets:Model"], ["config_targets.Model"]])
def test_target_is_built_where_it_is_allowed(allow):
    assert runner.build(plan_of({"_target_": "config_targets:Model", "hidden": 3}), allow) == Model(3)


@pytest.mark.parametrize("allow", [[], ["config_targets:Mode"], ["config."], ["config_targets.Model."]])
def test_target_is_refused_where_it_is_not_allowed(allow):
    plan = plan_of([{"_target_": "config_targets:Model", "hidden": 3}])
    message = error_of(lambda: runner.build(plan, allow), errors.TargetNotAllowedError)
    assert message.startswith("0: target 'config_targets:Model' is not allowed here: add it, or its package")


HOSTILE = [
    {"_target_": "os:system", "command": "exit"},
    {"_target_": "subprocess:Popen", "args": ["true"]},
    {"_target_": "builtins:eval", "_args_": ["1"]},
    {"_target_": "builtins:getattr", "_args_": [1, "real"]},
    {"_target_": "importlib:import_module", "name": "antigravity"},
    {"_target_": "antigravity:webbrowser.open", "url": "x"},
    {"_ref_": "antigravity:fly"},
    {"_enum_": "antigravity:A.B"},
    {"_dict_": [[{"_ref_": "antigravity:fly"}, 1]]},
    {"_target_": "nemo_airflow.runner.plan:build", "plan": {"version": 1, "root": 1}},
    {"_target_": "nemo_airflow.runner.script:subprocess.call", "args": []},
]


@pytest.mark.parametrize("node", HOSTILE, ids=str)
@pytest.mark.parametrize("place", ["first", "last"])
def test_hostile_target_is_refused_before_anything_is_imported(node, place, monkeypatch):
    monkeypatch.delitem(sys.modules, "config_extra_targets", raising=False)
    fair = {"_target_": "config_extra_targets:Sole"}
    plan = plan_of([node, fair] if place == "first" else [fair, node])
    with pytest.raises(errors.TargetNotAllowedError):
        runner.build(plan, ("config_targets.", "config_extra_targets."))
    assert "config_extra_targets" not in sys.modules
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("config_targets:functools.partial", "goes through the module 'functools'"),
        ("config_targets:collections.abc", "goes through the module"),
        ("config_targets:imported_on_purpose", "is from 'functools', which is not allowed here"),
        ("config_targets:double.real", "goes through a function"),
        ("config_targets:Model.mro", "is from None"),
    ],
)
def test_prefix_allows_only_what_is_defined_under_it(name, says):
    assert says in error_of(lambda: runner.build(plan_of({"_target_": name}), ALLOW), errors.TargetNotAllowedError)


def test_exact_name_allows_what_a_module_has_imported():
    allow = ["config_targets:imported_on_purpose", "config_targets:double"]
    built = runner.build(plan_of({"_target_": allow[0], "_args_": [{"_ref_": allow[1]}, 3]}), allow)
    assert built() == 6


@pytest.mark.parametrize(
    "name", ["a:b.__globals__", "__main__:x", "a.__init__:x", "a:__import__", "a", "a:", ":b", "a:b:c", "a b:c"]
)
def test_malformed_and_dunder_names_are_refused_even_if_allowed(name):
    error_of(lambda: runner.build(plan_of({"_target_": name}), [name, "a."]), errors.PlanError)


def test_missing_module_and_missing_name_say_what_is_missing():
    def build(name):
        return error_of(lambda: runner.build(plan_of({"_target_": name}), [name]), errors.TargetNotImportableError)

    assert build("not_there.at_all:x").startswith("no module 'not_there' for the config's target 'not_there.at_all:x'")
    assert build("config_targets:Nothing") == "module 'config_targets' has no 'Nothing', which the config names"


def test_error_inside_a_targets_module_is_its_own(tmp_path, monkeypatch):
    (tmp_path / "imports_missing.py").write_text("import not_there_either\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as caught:
        runner.build(plan_of({"_target_": "imports_missing:x"}), ["imports_missing."])
    assert not isinstance(caught.value, errors.TargetNotImportableError)


def test_enum_is_allowed_by_its_class_and_gives_members_only():
    plan = plan_of({"_enum_": "config_targets:Color.BLUE"})
    assert targets_in(plan) == ("config_targets:Color",)
    assert runner.build(plan, ["config_targets:Color"]) is Color.BLUE
    for name in ("Color.mro", "Color.GREEN", "Model.small"):
        says = error_of(
            lambda name=name: runner.build(plan_of([{"_enum_": f"config_targets:{name}"}]), ALLOW), errors.PlanError
        )
        assert says.startswith("0: 'config_targets:")


def test_shared_nodes_are_built_once_also_when_the_first_comes_last():
    node = {"_target_": "config_targets:Model", "hidden": 1}
    for root in ([{**node, "_id_": "1"}, {"_same_": "1"}], [{"_same_": "1"}, {**node, "_id_": "1"}]):
        first, second = runner.build(plan_of(root), ALLOW)
        assert first is second


def test_partial_is_built_to_a_callable():
    assert runner.build(plans.to_plan(Partial(double, 4)), ALLOW)() == 8


EVERY_VERSION = """
import json, sys
from nemo_airflow.runner import plan
built = plan.build(json.load(sys.stdin), ["fractions."])
assert "fiddle" not in sys.modules and "nemo_airflow.config" not in sys.modules
print(repr(built))
"""


@pytest.mark.parametrize("python", working_pythons())
def test_plan_is_built_by_every_python_at_hand(python):
    shared = {"_id_": "1", "_value_": [1]}
    root = [
        {"_target_": "fractions:Fraction", "_args_": [1, 2]},
        {"_datetime_": "2026-01-02T03:04:05+00:00"},
        {"_dict_": [[{"_tuple_": [1]}, {"_path_": "/a"}]]},
        {"_timedelta_": "1.000001"},
        shared,
        {"_same_": "1"},
    ]
    command = [python, "-I", "-c", f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n{EVERY_VERSION}"]
    done = subprocess.run(command, input=plans.dumps(plan_of(root)), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("[Fraction(1, 2), datetime.datetime(2026, 1, 2, 3, 4, 5")
    assert done.stdout.endswith("{(1,): PosixPath('/a')}, datetime.timedelta(seconds=1, microseconds=1), [1], [1]]\n")


def run_script(config, folder):
    """Runs a script's config as a job does: in a process of its own, in the working directory."""
    code = (
        "import json, sys; from nemo_airflow.language import names; from nemo_airflow.runner import plan; "
        "plan.build(json.loads(sys.argv[1]), [names.SCRIPT])()"
    )
    plan = plans.dumps(plans.to_plan(config))
    return subprocess.run(
        [sys.executable, "-c", code, plan],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_script_runs_with_its_arguments_and_environment(tmp_path):
    (tmp_path / "run.sh").write_text('echo "$1|$2|$NAME|$PWD"')
    done = run_script(Script(path="run.sh", args=["a b", "$HOME;'"], env={"NAME": "x y"}), tmp_path)
    assert (done.returncode, done.stdout) == (0, f"a b|$HOME;'|x y|{tmp_path}\n")


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (Script(inline="exit 3"), 3),
        (Script(inline="kill -9 $$"), 137),
        (Script(inline="true"), 0),
        (Script(inline="import sys; sys.exit(4)", entrypoint=f"{sys.executable} -u"), 4),
        (Script(path="a_module", m=True, entrypoint=sys.executable, args=["5"]), 5),
    ],
)
def test_script_ends_the_job_as_it_ends(config, code, tmp_path):
    (tmp_path / "a_module.py").write_text("import sys; sys.exit(int(sys.argv[1]))")
    assert run_script(config, tmp_path).returncode == code
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".script")] == []


def test_script_is_left_to_clean_up_when_the_job_is_cancelled(tmp_path):
    plan = plans.dumps(
        plans.to_plan(Script(inline="trap 'echo cleaned; exit 0' TERM; echo started; while :; do sleep 0.05; done"))
    )
    code = (
        "import json, signal, sys; from nemo_airflow.language import names; from nemo_airflow.runner import plan\n"
        "def stop(*_): raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop); plan.build(json.loads(sys.argv[1]), [names.SCRIPT])()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, plan],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "started\n"
    os.killpg(process.pid, signal.SIGTERM)
    assert process.communicate(timeout=300) == ("cleaned\n", None)
    assert process.returncode == 143


def test_inline_python_imports_from_the_working_directory(tmp_path):
    (tmp_path / "shipped.py").write_text("value = 7")
    done = run_script(Script(inline="import shipped; print(shipped.value)", entrypoint=sys.executable), tmp_path)
    assert done.stdout == "7\n"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (Script(path="nothing.sh"), "no script 'nothing.sh' in the working directory"),
        (Script(inline="x", entrypoint="no-such-program"), "no program 'no-such-program'"),
    ],
)
def test_script_that_is_not_there_is_named(config, says, tmp_path):
    done = run_script(config, tmp_path)
    assert done.returncode == 1
    assert says in done.stderr.splitlines()[-1]


def test_job_and_config_agree_on_a_whole_config():
    config = [Config(Model, 1), Config(Model, hidden=2, activation="tanh")]
    assert runner.build(plans.to_plan(config), ALLOW) == [Model(1), Model(2, "tanh")]
