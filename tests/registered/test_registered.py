"""Recipes and executors by the names that installed distributions register."""

import datetime
import importlib
import json
import subprocess
import sys

import pytest
from airflow.models.xcom import XComModel
from airflow.sdk import DAG, task
from airflow.utils.session import create_session
from dag_database import register
from registered_distribution import install

from nemo_airflow import LocalExecutor, NemoRunOperator, Partial, Recipe, params_from
from nemo_airflow.config import apply_overrides, compose
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import (
    ConfigError,
    ExecutorError,
    OverrideError,
    ParameterTypeError,
    TargetNotAllowedError,
    TargetNotImportableError,
    UnknownParameterError,
)
from nemo_airflow.registered import named_executor, named_recipe

HEAVY_TARGETS = """
import torchlike

class A:
    def __init__(self, x: int = 1): ...

class B(A): ...

def run(a: A): ...
"""


def cli(*arguments, cwd):
    command = [sys.executable, "-m", "nemo_airflow.cli", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300)


def test_a_recipe_is_a_function_or_a_config(zoo):
    small, large = named_recipe("small"), named_recipe("large")
    assert type(small) is Partial
    assert (small.net.hidden, large.net.hidden) == (8, 1024)
    large.net.hidden = 1
    assert named_recipe("large").net.hidden == 1024


def test_a_recipe_whose_libraries_are_not_here_is_called_in_the_job(zoo):
    heavy = named_recipe("heavy")
    assert isinstance(heavy, Recipe)
    assert "torchlike" not in sys.modules
    composed = compose("heavy", {"hidden": 5, "net": {"act": "tanh", "hidden": 7}}, ["epochs=3"])
    assert composed.hidden == 5
    assert composed.__recipe_overrides__ == ["net.act=tanh", "net.hidden=7", "epochs=3"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smal", "no recipe 'smal' is registered under 'nemo_airflow.recipes'; did you mean 'small'"),
        ("number", "what number() returned is int, not a Config, Partial or Script"),
        ("failing", "failing() failed: RuntimeError: no luck today"),
        ("gone", "'gone' of zoo 1.2 (zoo.gone:x) cannot be loaded: No module named 'zoo.gone'"),
        ("typo", "has no attribute 'smal'"),
        ("module", "'zoo.recipes' does not name an object: the entry point has to be pkg.mod:name"),
        ("syntax", "SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_recipe_is_said_in_one_line(zoo, name, message):
    with pytest.raises(ConfigError) as caught:
        named_recipe(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_executor_is_an_object_a_config_or_a_function(zoo):
    assert [named_executor(name).grace for name in ("cluster", "as-config", "patient")] == [7.0, 8.0, 9.0]
    assert named_executor("local") == LocalExecutor()
    for name, message in [
        ("clustr", "no executor 'clustr' is registered under 'nemo_airflow.named_executors'; did you mean 'cluster'"),
        ("skypliot", "did you mean 'skypilot'"),
        ("nothing", "the executor 'nothing' (zoo.executors:nothing) is int, not an Executor"),
        ("lost", "has no attribute 'lost'"),
    ]:
        with pytest.raises(ExecutorError) as caught:
            named_executor(name)
        assert message in str(caught.value)


def test_a_name_that_two_distributions_register_is_refused(zoo):
    install(zoo, "other", "[nemo_airflow.recipes]\nsmall = zoo.recipes:large\n")
    importlib.invalidate_caches()
    with pytest.raises(TargetNotImportableError, match=r"registered by .*zoo 1\.2"):
        named_recipe("small")
    assert named_recipe("large").net.hidden == 1024


def test_an_override_names_a_recipe_or_what_stands_beside(zoo):
    config = named_recipe("large")
    changed = apply_overrides(config, ["optimizer=adam(lr=0.25)"], allow=["zoo."])
    assert (changed.optimizer.lr, changed.optimizer.betas) == (0.25, (0.9, 0.95))
    changed = apply_overrides(config, ["optimizer=SGD(0.5, momentum=0.9)", "net=WideNet(hidden=3)"], allow=["zoo."])
    assert plans.to_plan(changed)["root"]["optimizer"]["_target_"] == "zoo.nets:SGD"
    assert changed.net.hidden == 3
    by_target = apply_overrides(config, ["optimizer={_target_: zoo.recipes.adam, lr: 2}"], allow=["zoo."])
    assert by_target == apply_overrides(config, ["optimizer=zoo.recipes.adam(lr=2)"], allow=["zoo."])
    assert plans.to_plan(by_target)["root"]["optimizer"]["_target_"] == "zoo.nets:Adam"
    for override, kind, message in [
        ("optimizer=adam(lrr=1)", UnknownParameterError, "optimizer.lrr: adam has no parameter 'lrr'"),
        ("optimizer=adam(lr=fast)", ParameterTypeError, "optimizer.lr: expected float, got 'fast'"),
        ("optimizer=Net(hidden=3)", ParameterTypeError, "optimizer: expected Optimizer, got Config"),
        ("optimizer=adma(lr=1)", OverrideError, "did you mean 'adam'"),
        ("optimizer={_target_: zoo.recipes.adam, lr: fast}", ParameterTypeError, "optimizer.lr: expected float"),
        ("optimizer=adam(lr=1, lr=2)", OverrideError, "given twice"),
    ]:
        with pytest.raises(kind) as caught:
            apply_overrides(config, [override], allow=["zoo."])
        assert message in str(caught.value)


def test_nothing_is_imported_that_the_allow_list_does_not_have(zoo):
    config = Partial("zoo.nets:train")
    for override in ("optimizer=zoo.recipes:train()", "optimizer={_target_: zoo.recipes.Adam}"):
        with pytest.raises(TargetNotAllowedError, match=r"zoo\.recipes"):
            apply_overrides(config, [override])
        with pytest.raises(TargetNotAllowedError, match=r"zoo\.recipes"):
            apply_overrides(config, [override], allow=["zoo.nets."])
    assert not [module for module in sys.modules if module.startswith("zoo.")]


@pytest.mark.parametrize(
    "override",
    ["optimizer=adam(lr=2)", "optimizer=zoo.recipes:adam(2)", "optimizer={_target_: zoo.recipes.adam, lr: 2}"],
)
def test_a_registered_recipe_needs_no_entry_wherever_a_change_may_name_it(zoo, override):
    config = named_recipe("large")
    expected = compose("large", [override])
    assert expected.optimizer.lr == 2.0
    assert apply_overrides(config, [override]) == expected
    with pytest.raises(TargetNotAllowedError, match=r"'zoo\.nets:SGD' is not allowed here"):
        apply_overrides(config, [override, "optimizer=zoo.nets:SGD()"])


def test_a_target_of_a_source_takes_factories_of_the_source(zoo):
    (zoo / "heavyzoo.py").write_text(HEAVY_TARGETS)
    changed = apply_overrides(Partial("heavyzoo:run"), ["a=B(x=3)"], allow=["heavyzoo."])
    assert plans.to_plan(changed)["root"]["a"] == {"_target_": "heavyzoo:B", "x": 3}
    assert Recipe("heavyzoo:run", ["a=B(x=3)"]).a == changed.a
    with pytest.raises(TargetNotAllowedError, match="'heavyzoo:B' is not allowed here"):
        apply_overrides(Partial("heavyzoo:run"), ["a=heavyzoo:B(x=3)"])
    with pytest.raises(UnknownParameterError, match=r"a\.y: B has no parameter 'y'"):
        Recipe("heavyzoo:run", ["a=B(y=3)"])
    assert "heavyzoo" not in sys.modules


def zoo_config():
    return "small"


def test_operators_take_names(zoo):
    operator = NemoRunOperator(task_id="t", config="small", job_executor="patient")
    assert operator.config.value.net.hidden == 8
    assert operator.job_executor.value == LocalExecutor(grace=9.0)
    assert params_from("small")["optimizer.lr"].value == 1e-3
    with DAG("named", schedule=None):
        decorated = task.nemo(job_executor="cluster")(zoo_config)()
    assert decorated.operator.job_executor.value == LocalExecutor(grace=7.0)
    later = NemoRunOperator(task_id="t", config="{{ params.recipe }}", job_executor="{{ params.place }}")
    assert (later.config, later.job_executor) == ("{{ params.recipe }}", "{{ params.place }}")
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        NemoRunOperator(task_id="t", config="smal")
    for name in ("exp.yaml", "zoo.recipes:small"):
        with pytest.raises(ConfigError, match=r"is not the name of a recipe: give compose\("):
            NemoRunOperator(task_id="t", config=name)
    with pytest.raises(ExecutorError, match="did you mean 'slurm'"):
        NemoRunOperator(task_id="t", config="small", job_executor="slurn")


@pytest.mark.usefixtures("airflow_database")
def test_a_run_chooses_among_the_registered_names(zoo, tmp_path):
    choices = {"recipe": "large", "place": "cluster"}
    with DAG("chosen", schedule=None, start_date=datetime.datetime(2026, 1, 1), params=choices) as dag:
        NemoRunOperator(
            task_id="t",
            config="{{ params.recipe }}",
            job_executor="{{ params.place }}",
            overrides=["optimizer=adam(lr=0.25)"],
            tracker=None,
            env={"PYTHONPATH": str(zoo)},
        )
    register(dag)
    dag_run = dag.test(run_conf={"recipe": "small"})
    with create_session() as session:
        rows = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids="chosen", key="return_value")).all()
        results = [XComModel.deserialize_value(row) for row in rows]
    assert results == [{"hidden": 8, "lr": 0.25, "epochs": 1}]
    assert str(dag.test(run_conf={"recipe": "zoo.recipes:small"}).state) == "failed"


@pytest.mark.usefixtures("airflow_database")
def test_a_runs_conf_names_registered_recipes_and_nothing_else_of_their_modules(zoo, capfd, caplog):
    choices = {"r.optimizer": "adam(lr=0.25)"}
    with DAG("by_conf", schedule=None, start_date=datetime.datetime(2026, 1, 1), params=choices) as dag:
        NemoRunOperator(
            task_id="t", config="large", params_prefix="r", tracker=None, env={"PYTHONPATH": str(zoo)},
            job_executor=LocalExecutor(grace=1),
        )  # fmt: skip
    register(dag)
    assert str(dag.test(run_conf={"r.optimizer": "adam(lr=0.75)"}).state) == "success"
    assert str(dag.test(run_conf={"r.optimizer": "zoo.nets:SGD(lr=0.75)"}).state) == "failed"
    said = "optimizer: target 'zoo.nets:SGD' is not allowed here: add it to allow"
    assert said in "".join(capfd.readouterr()) + caplog.text


@pytest.mark.usefixtures("airflow_database")
def test_a_registered_recipe_below_one_that_the_job_resolves_needs_no_entry_either(zoo, tmp_path):
    with DAG("in_job", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(
            task_id="t", config=Recipe("zoo.recipes:small"), overrides=["optimizer=tuned(lr=0.75)"], tracker=None,
            env={"PYTHONPATH": str(zoo)}, job_executor=LocalExecutor(root=str(tmp_path / "jobs"), grace=1),
        )  # fmt: skip
    register(dag)
    assert str(dag.test().state) == "success"
    (file,) = (tmp_path / "jobs").glob("*/job.json")
    job = json.loads(file.read_text())
    assert job["plan"]["root"]["_recipe_"] == {"overrides": ["optimizer=zoo.recipes:tuned(lr=0.75)"]}
    assert job["allow"] == ["zoo.recipes:small", "zoo.recipes:tuned"]


def test_the_list_says_what_there_is_and_what_is_broken_without_importing(zoo, tmp_path):
    (zoo / "zoo" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    done = cli("list", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert lines["small"].split() == ["small", "zoo", "1.2", "zoo.recipes:small", "A", "small", "training."]
    assert lines["large"].endswith("A large training.")
    assert lines["heavy"].endswith("Needs a library that is not here.")
    assert lines["gone"].endswith("broken: there is no module 'zoo.gone'")
    assert lines["typo"].endswith("broken: module 'zoo.recipes' has no 'smal'; did you mean 'small'?")
    assert "broken: 'zoo.recipes' does not name an object" in lines["module"]
    assert "broken: " in lines["syntax"]
    assert "line 1 cannot be read" in lines["syntax"]
    assert lines["cluster"].endswith("The usual place.")
    assert "GitArchivePackager" in done.stdout
    assert "Records runs in MLflow." in lines["mlflow"]
    only = json.loads(cli("list", "recipes", "--json", cwd=tmp_path).stdout)
    assert {item["what"] for item in only} == {"recipes"}
    assert [item["name"] for item in only if item["problem"]] == ["gone", "module", "syntax", "typo"]
    wrong = cli("list", "recipe", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_the_list_loads_no_library(zoo, tmp_path):
    code = (
        "import sys; from nemo_airflow.cli import main; main(['list']); "
        "heavy = {'airflow', 'mlflow', 'asyncssh', 'docker', 'kubernetes', 'ray', 'zoo'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_line_composes_names_files_and_overrides(zoo, tmp_path):
    (tmp_path / "exp.yaml").write_text("_base_: small\nnet: {hidden: 64}\noverrides: ['optimizer.lr*=2']\n")
    (tmp_path / "long.toml").write_text("epochs = 9\n[names]\na = 1\n")
    (tmp_path / "optimizers.yaml").write_text("sgd: {_target_: zoo.nets.SGD, lr: 0.125}\n")
    done = cli(
        "plan", "exp.yaml", "names.a=2", "--layer", "long.toml", "--allow", "zoo.", "optimizer=@optimizers.yaml:sgd",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    root = json.loads(cli("plan", "--json", "exp.yaml", "--layer", "long.toml", cwd=tmp_path).stdout)["root"]
    assert (root["net"]["hidden"], root["optimizer"]["lr"], root["epochs"]) == (64, 0.002, 9)
    assert root["_partial_"] is True
    for text in ("hidden: 64", "epochs: 9", "a: 2", "_target_: zoo.nets.SGD", "lr: 0.125"):
        assert text in done.stdout
    for arguments, shown in [
        (("plan", "small", "net.hidden=3"), "hidden: 3"),
        (("plan", "small(hidden=5)"), "hidden: 5"),
        (("plan", "small", "optimizer=adam(lr=4)"), "lr: 4"),
        (("plan", "zoo.recipes:large"), "hidden: 1024"),
        (("render", "small", "net.hidden=3", "--executor", "as-config"), '"hidden":3'),
        (("code", "small(hidden=6)"), "hidden=6"),
    ]:
        done = cli(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout


def test_the_command_line_tells_which_layer_set_a_value(zoo, tmp_path):
    (tmp_path / "exp.yaml").write_text("_base_: small\nnet: {hidden: 64}\nepochs: 3\n")
    done = cli("history", "exp.yaml", "epochs=4", "optimizer=adam()", "--allow", "zoo.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the file's values from exp.yaml" in done.stdout
    assert "override 'epochs=4' from the command line" in done.stdout
    assert "zoo/recipes.py:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "smal"), "'smal' is not the name of a config"),
        (("plan", "small", "optimizer=@no.yaml"), "optimizer: cannot read no.yaml: No such file or directory"),
        (("plan", "small", "optimizer=os:system(ls)"), "optimizer: target 'os:system' is not allowed here"),
        (("plan", "bad.yaml"), "net.hiden: Net has no parameter 'hiden' at net; did you mean 'hidden'"),
        (("plan", "bad.yaml"), "(in bad.yaml)"),
        (("plan", "small", "--layer", "os.yaml"), "is not allowed here"),
        (("plan", "small", "--layer", "os.yaml"), "(in --layer os.yaml)"),
        (("plan", "one.yaml"), "one.yaml is among its own bases: one.yaml -> two.yaml -> one.yaml"),
        (("plan", "list.yaml"), "list.yaml contains a list, but a layer has to be a mapping of values"),
        (("render", "small", "--executor", "nowhere"), "no executor 'nowhere' is registered"),
        (("plan", "failing"), "failing() failed: RuntimeError: no luck today"),
    ],
)
def test_what_is_wrong_on_the_command_line_is_one_line(zoo, tmp_path, arguments, message):
    (tmp_path / "bad.yaml").write_text("_base_: [small]\nnet: {hiden: 3}\n")
    (tmp_path / "os.yaml").write_text("net: {_target_: os.system, command: ls}\n")
    (tmp_path / "one.yaml").write_text("_base_: two.yaml\n")
    (tmp_path / "two.yaml").write_text("_base_: one.yaml\n")
    (tmp_path / "list.yaml").write_text("[1]\n")
    done = cli(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
