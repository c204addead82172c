"""A script runs a shell: who may trigger a run, or writes a file of values, cannot bring one into a job."""

import pytest
from config_targets import collect

from nemo_airflow import Config, Script
from nemo_airflow.config import apply_overrides, from_yaml
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import TargetNotAllowedError
from nemo_airflow.language.names import SCRIPT
from nemo_airflow.language.recipes import resolve as recipe
from nemo_airflow.operators.preparation import allowed_by_author, plan_of
from nemo_airflow.runner.plan import build

TEXT = f"{SCRIPT}(inline='id')"
NODE = {"_target_": SCRIPT, "inline": "id"}


@pytest.mark.parametrize("value", [TEXT, NODE])
def test_override_of_a_run_cannot_bring_a_script(value):
    config = Config(collect, Config(collect))
    overrides = [f"item={value}"] if value == TEXT else {"item": value}
    with pytest.raises(TargetNotAllowedError, match="script:run' is not allowed here"):
        plan_of(apply_overrides(config, overrides), allowed_by_author(config, {}, ()))


def test_author_may_write_a_script_anywhere():
    config = Config(collect, Script(inline="id"))
    _, allowed = plan_of(config, allowed_by_author(config, {}, ()))
    assert SCRIPT in allowed


def test_file_of_a_config_cannot_bring_a_script_unless_it_is_allowed():
    text = f"_target_: {SCRIPT}\ninline: id\n"
    with pytest.raises(TargetNotAllowedError):
        from_yaml(text)
    assert plans.targets(plans.to_plan(from_yaml(text, allow=[SCRIPT]))) == (SCRIPT,)


def test_override_of_a_recipe_cannot_bring_a_script_in_the_job(tmp_path, monkeypatch):
    code = "from nemo_airflow import Config\ndef call(item=0): return item\ndef small(): return Config(call)\n"
    (tmp_path / "recipes_of_others.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    assert recipe.build_here("recipes_of_others:small", (), {}, ["item=3"]) == 3
    with pytest.raises(TargetNotAllowedError, match="script:run' is not allowed here"):
        recipe.build_here("recipes_of_others:small", (), {}, [f"item={TEXT}"])


def test_job_builds_no_script_within_a_config_that_does_not_allow_it():
    plan = {"version": 1, "root": {"_target_": "config_targets:collect", "item": NODE}}
    with pytest.raises(TargetNotAllowedError):
        build(plan, ["config_targets."])
