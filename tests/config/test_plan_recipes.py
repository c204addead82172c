"""The form that a recipe has in a plan: written, read, refused, and built by what stands for its resolver."""

import subprocess
import sys
from pathlib import Path

import pytest
from config_targets import Model, collect

from nemo_airflow import Config
from nemo_airflow.config import apply_overrides, plan_from_yaml, to_yaml, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import PlanError, TargetNotAllowedError
from nemo_airflow.language import errors
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.contents import targets_in
from nemo_airflow.runner import plan as runner

ALLOW = ("config_targets.",)


class RecipeOfModel(Config):
    """A config that says of itself that it is a recipe."""

    __recipe_overrides__ = ("hidden=3", "dropout=0.5")


def plan_of(root):
    return {"version": 1, "root": root}


NODE = {"_target_": "config_targets:Model", "_recipe_": {"overrides": ["hidden=3", "dropout=0.5"]}, "hidden": 1}


def test_config_with_overrides_of_a_recipe_is_written_as_one():
    plan = plans.to_plan(Config(collect, RecipeOfModel(Model, hidden=1)), defaults=False)
    assert plan["root"] == {"_target_": "config_targets:collect", "item": NODE}
    assert plans.loads(plans.dumps(plan)) == plan
    assert targets_in(plan) == ("config_targets:Model", "config_targets:collect")


class Unshown(Config):
    """A config whose text must not be asked for."""

    def __repr__(self):
        raise AssertionError("its text was made")


def test_whether_a_config_is_a_recipe_is_told_without_its_text():
    # Fiddle makes it for the error of an attribute that is not there: of a large config, at each of its nodes.
    config = Unshown(collect, Unshown(Model, hidden=1))
    validate(config)
    assert plans.to_plan(apply_overrides(config, ["item.hidden=2"]))["root"]["item"]["hidden"] == 2


def test_recipe_without_overrides_is_still_a_recipe():
    recipe = RecipeOfModel(Model, hidden=1)
    object.__setattr__(recipe, "__recipe_overrides__", [])
    assert plans.to_plan(recipe)["root"]["_recipe_"] == {"overrides": []}
    object.__setattr__(recipe, "__recipe_overrides__", None)
    assert "_recipe_" not in plans.to_plan(recipe)["root"]


def test_overrides_are_in_the_flat_form():
    assert plans.flatten(plan_of([NODE]))["0._recipe_"] == '["hidden=3", "dropout=0.5"]'
    assert "_recipe_" not in plans.flatten(plan_of({**NODE, "_recipe_": {"overrides": []}}))


def test_recipe_is_the_same_in_yaml():
    text = to_yaml(RecipeOfModel(Model, hidden=1))
    assert plan_from_yaml(text) == plan_of(NODE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"_recipe_": True}, "_recipe_ takes"),
        ({"_recipe_": {}}, "_recipe_ takes"),
        ({"_recipe_": {"overrides": "a=1"}}, "_recipe_ takes"),
        ({"_recipe_": {"overrides": [1]}}, "_recipe_ takes"),
        ({"_recipe_": {"overrides": [], "more": 1}}, "_recipe_ takes"),
        ({"_recipe_": {"overrides": ["\ud800"]}}, "not valid Unicode"),
        ({"_partial_": True}, "a recipe cannot be"),
        ({"_arg_factory_": True}, "a recipe cannot be"),
    ],
)
def test_recipe_of_another_form_is_refused(changed, message):
    with pytest.raises(errors.PlanError, match=message):
        runner.build(plan_of({**NODE, **changed}), ALLOW)


def test_recipe_outside_a_target_is_refused():
    with pytest.raises(errors.PlanError, match="not a form of node that a plan has"):
        runner.build(plan_of({"_recipe_": {"overrides": []}}))


class Resolving(Builder):
    def recipe(self, name, target, args, kwargs, overrides, path):
        return name, target, args, kwargs, overrides, path


def test_builder_hands_over_the_imported_factory_and_built_arguments():
    root = [{**NODE, "_args_": [{"_tuple_": [1]}], "_id_": "1"}, {"_same_": "1"}]
    first, second = Resolving(ALLOW).build(plan_of(root))
    assert first == (
        "config_targets:Model", Model, [(1,)], {"hidden": 1}, ["hidden=3", "dropout=0.5"], (0,),
    )  # fmt: skip
    assert first is second


def test_recipe_that_is_not_allowed_is_refused_before_anything_is_imported():
    plan = plan_of({"_target_": "antigravity:fly", "_recipe_": {"overrides": []}})
    with pytest.raises(errors.TargetNotAllowedError):
        runner.build(plan, ALLOW)
    with pytest.raises(TargetNotAllowedError):
        plans.from_plan(plan, ALLOW)
    assert "antigravity" not in sys.modules


def test_builder_that_knows_no_recipes_says_so():
    with pytest.raises(errors.PlanError, match="0: the recipe 'config_targets:Model' was not resolved before building"):
        Builder(ALLOW).build(plan_of([NODE]))


def test_plan_with_a_recipe_is_built_by_the_module_of_recipes(monkeypatch):
    given = []
    build = lambda plan, allow: (given.append((plan, allow)), ("built", plan, []))[1]  # noqa: E731
    monkeypatch.setattr("nemo_airflow.language.recipes.resolve.build", build)
    assert runner.build(plan_of([NODE]), ["config_targets."]) == "built"
    assert given == [(plan_of([NODE]), ALLOW)]


def test_config_of_a_recipe_is_made_without_its_factorys_module(monkeypatch):
    given = []
    monkeypatch.setattr(
        "nemo_airflow.config.plan.decoding.recipe_from", lambda *arguments: given.append(arguments) or "recipe"
    )
    plan = plan_of([{**NODE, "_target_": "antigravity:fly", "_args_": [5]}])
    assert plans.from_plan(plan, ["antigravity:fly"]) == ["recipe"]
    assert given == [("antigravity:fly", {0: 5, "hidden": 1}, ["hidden=3", "dropout=0.5"])]
    assert "antigravity" not in sys.modules


def test_reading_a_recipe_imports_nothing_of_it():
    code = (
        "import sys; from nemo_airflow.config import plan as p;"
        'p.loads(\'{"version":1,"root":{"_target_":"antigravity:fly","_recipe_":{"overrides":[]}}}\');'
        "assert not {'antigravity', 'nemo_airflow.language.recipes.resolve'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_text_of_the_error_is_one_line():
    with pytest.raises(PlanError) as caught:
        plans.loads('{"version":1,"root":{"_target_":"a:b","_recipe_":{"overrides":3}}}')
    assert str(caught.value) == '_recipe_ takes only {"overrides": [...]}, a list of texts'
