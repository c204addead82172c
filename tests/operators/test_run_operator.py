"""The operator, run by ``dag.test()``: deferral included, with real jobs."""

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import operator_jobs as jobs
import pytest
from airflow.sdk import task
from operator_dags import jobs_in, new_dag, run

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, Partial, Script, params_from
from nemo_airflow.exceptions import ConfigError, TargetNotImportableError

pytestmark = pytest.mark.usefixtures("airflow_database")

HERE = str(Path(__file__).parent)


def overridable(defaults, prefix="d", **arguments):
    """Returns a DAG whose task takes overrides from the run's conf."""
    config = Config(jobs.train, model=Config(jobs.Model, hidden=3))
    with new_dag(params=params_from(config, prefix)) as dag:
        NemoRunOperator(task_id="t", config=config, params_prefix=prefix, **{**defaults, **arguments})
    return dag


followed_where = pytest.mark.parametrize(
    "where",
    [{"defer_after": 0}, {}, {"deferrable": False}],
    ids=["in the triggerer", "in the worker at first", "in the worker"],
)


@followed_where
def test_result_of_the_job_is_the_tasks_xcom(defaults, where):
    with new_dag() as dag:
        NemoRunOperator(
            task_id="t",
            config=Config(jobs.train, model=Config(jobs.Model, hidden=3)),
            **where,
            **defaults,
        )
    states, results = run(dag)
    assert states == {("t", -1): "success"}
    assert results[("t", -1)] == {"hidden": 3, "name": "mlp", "learning_rate": 0.1, "tags": None}


@followed_where
def test_failed_job_fails_the_task_with_its_own_traceback(defaults, where, caplog, capfd):
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.fail, message="no luck"), **where, **defaults)
    states, results = run(dag)
    assert states == {("t", -1): "failed"}
    assert ("t", -1) not in results
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "RuntimeError: no luck" in printed
    assert 'operator_jobs.py", line' in printed


def test_coroutine_function_is_awaited(defaults):
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.fetch, value=1), **defaults)
    assert run(dag)[1] == {("t", -1): 2}


def test_partial_and_script_run_as_well(defaults):
    with new_dag() as dag:
        NemoRunOperator(task_id="partial", config=Partial(jobs.number), **defaults)
        NemoRunOperator(task_id="script", config=Script(inline="test $((40 + 2)) = 42"), **defaults)
        NemoRunOperator(task_id="bad_script", config=Script(inline="exit 3"), **defaults)
    states, results = run(dag)
    assert states == {("partial", -1): "success", ("script", -1): "success", ("bad_script", -1): "failed"}
    assert results[("partial", -1)] == 21


def test_templates_in_a_nested_config_are_rendered_and_typed(defaults):
    with new_dag(params={"width": 5}) as dag:
        model = Config(jobs.Model, hidden="{{ params.width }}", name="{{ ds }}")
        NemoRunOperator(task_id="t", config=Config(jobs.train, model=model, tags=["{{ dag.dag_id }}"]), **defaults)
    _, results = run(dag, logical_date=datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC))
    assert results[("t", -1)] == {"hidden": 5, "name": "2026-02-03", "learning_rate": 0.1, "tags": [dag.dag_id]}


def test_output_of_a_task_inside_a_config_is_wired_upstream_and_passed(defaults):
    with new_dag() as dag:
        number = NemoRunOperator(task_id="number", config=Config(jobs.number), **defaults)
        model = Config(jobs.Model, hidden=number.output)
        train = NemoRunOperator(
            task_id="train", config=Config(jobs.train, model=model), multiple_outputs=True, **defaults
        )
        double = NemoRunOperator(task_id="double", config=Config(jobs.double, value=train.output["hidden"]), **defaults)
    assert train.upstream_task_ids == {"number"}
    assert double.upstream_task_ids == {"train"}
    _, results = run(dag)
    assert results[("train", -1)]["hidden"] == 21
    assert results[("double", -1)] == 42


def test_executor_may_be_a_config_with_templates(defaults, root):
    defaults["job_executor"] = Config(LocalExecutor, root=str(root / "{{ dag.dag_id }}"))
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.number), **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "success"}
    assert len(jobs_in(root / dag.dag_id)) == 1


def test_mapping_over_configs_and_over_executors(defaults, root):
    by_executor = {name: value for name, value in defaults.items() if name != "job_executor"}
    with new_dag() as dag:
        configs = [Config(jobs.double, value=value) for value in (1, 2, 3)]
        NemoRunOperator.partial(task_id="configs", **defaults).expand(config=configs)
        executors = [LocalExecutor(root=str(root / name)) for name in ("a", "b")]
        NemoRunOperator.partial(task_id="executors", config=Config(jobs.number), **by_executor).expand(
            job_executor=executors
        )
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert [results[("configs", index)] for index in range(3)] == [2, 4, 6]
    assert len(jobs_in(root / "a")) == len(jobs_in(root / "b")) == 1


def test_decorated_function_returns_the_config_to_run(defaults):
    with new_dag() as dag:

        @task.nemo(**defaults)
        def train(hidden: int, ds=None):
            return Config(jobs.train, model=Config(jobs.Model, hidden=hidden, name="{{ ds }}"))

        @task.nemo(**defaults)
        def total(results):
            return Config(jobs.double, value=sum(result["hidden"] for result in results))

        total(train.expand(hidden=[1, 2, 3]))
    states, results = run(dag, logical_date=datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC))
    assert set(states.values()) == {"success"}
    assert results[("train", 2)]["name"] == "2026-02-03"
    assert results[("total", -1)] == 12


def test_overrides_and_the_trigger_form_change_the_config(defaults):
    config = Config(jobs.train, model=Config(jobs.Model))
    with new_dag(params=params_from(config, prefix="train")) as dag:
        NemoRunOperator(task_id="t", config=config, params_prefix="train", overrides=["model.name=other"], **defaults)
    _, results = run(dag, run_conf={"train.model.hidden": 64, "train.learning_rate": 0.5})
    assert results[("t", -1)] == {"hidden": 64, "name": "other", "learning_rate": 0.5, "tags": None}


def test_a_misspelt_key_of_a_runs_conf_is_refused_with_the_nearest_name(defaults, root, capfd, caplog):
    config = Config(jobs.train, model=Config(jobs.Model))
    with new_dag(params=params_from(config, prefix="train")) as dag:
        NemoRunOperator(task_id="t", config=config, params_prefix="train", **defaults)
    states, _ = run(dag, run_conf={"train.learning_rat": 0.5})
    assert states == {("t", -1): "failed"}
    said = (
        "the run's conf has 'train.learning_rat', which is not a param of the DAG; did you mean 'train.learning_rate'?"
    )
    assert said in "".join(capfd.readouterr()) + caplog.text
    assert jobs_in(root) == []


def test_a_recipe_is_run_and_kept_by_its_digest(defaults, root):
    """From the operator to the job and back: the factory is imported in the job only."""
    from nemo_airflow import Recipe
    from nemo_airflow.config import plan as plans
    from nemo_airflow.config.plan.versions import ConfigVersions

    recipe = Recipe("recipe_jobs:small", ["model.name=big"], source=HERE, hidden=4)
    before = set(ConfigVersions().list())
    with new_dag(params=params_from(recipe, prefix="r")) as dag:
        NemoRunOperator(task_id="t", config=recipe, params_prefix="r", overrides=["model.tags=[a]"], **defaults)
    _, results = run(dag, run_conf={"r.hidden": 16})
    assert results[("t", -1)] == {"hidden": 16, "name": "big", "tags": ["a"]}
    assert "recipe_jobs" not in sys.modules
    (digest,) = set(ConfigVersions().list()) - before
    found = ConfigVersions().load(digest)
    assert "_recipe_" in found["root"]
    assert plans.flatten(found)["hidden"] == "16"


def test_factories_in_overrides_of_a_recipe_are_read_from_its_folder_and_run_from_the_package(defaults, tmp_path):
    from nemo_airflow import PatternPackager, Recipe

    code = tmp_path / "code"
    (code / "shop").mkdir(parents=True)
    (code / "shop" / "recipes.py").write_text(
        "from nemo_airflow import Config, Partial\n"
        "from shop.nets import Net, describe\n\n"
        "def small(first: Net):\n"
        "    return Partial(describe, first=first, second=Config(Net, width=1))\n"
    )
    (code / "shop" / "nets.py").write_text(
        "class Net:\n"
        "    def __init__(self, width: int, below: 'Net | None' = None):\n"
        "        self.width, self.below = width, below\n\n"
        "class Wide(Net):\n"
        "    def __init__(self, width: int = 100):\n"
        "        super().__init__(width)\n\n"
        "def describe(first, second):\n"
        "    return [type(first).__name__, first.width, type(second).__name__, second.width, second.below.width]\n"
    )
    texts = ["first=shop.nets:Wide(width=7)"]
    recipe = Recipe("shop.recipes:small", texts, source=code)
    with new_dag() as dag:
        NemoRunOperator(
            task_id="t",
            config=recipe,
            packager=PatternPackager(path=str(code)),
            overrides=["second=shop.nets:Net(width=8, below=shop.nets:Wide())"],
            **{**defaults, "env": {}},
        )
        with pytest.raises(ConfigError, match=r"widht.* did you mean 'width'"):
            NemoRunOperator(task_id="wrong", config=recipe, overrides=["second=shop.nets:Net(widht=8)"])
    states, results = run(dag)
    assert states == {("t", -1): "success"}
    assert results[("t", -1)] == ["Wide", 7, "Net", 8, 100]
    assert not [module for module in sys.modules if module.partition(".")[0] == "shop"]


@pytest.mark.parametrize(
    ("arguments", "conf", "message"),
    [
        ({"config": Config(jobs.train, model=Config(jobs.Model, hidden="{{ 'many' }}"))}, {}, "model.hidden"),
        ({"config": Config(jobs.train), "params_prefix": "d"}, {}, "model"),
        ({"config": Config(jobs.number), "overrides": {"valve": "{{ 3 }}"}}, {}, "valve"),
        ({"config": Config(jobs.double, value=1), "overrides": ["{{ 'valeu' }}=3"]}, {}, "value"),
        (
            {"config": Config(jobs.double, value=1), "params_prefix": "d"},
            {"d.valeu": 3},
            "'d.valeu', which is not a param",
        ),
        (
            {"config": Config(jobs.double, value=1), "params_prefix": "d"},
            {"e.value": 3},
            "'e.value', which is not a param",
        ),
        ({"config": Config(jobs.number), "job_executor": LocalExecutor(time="{{ 'soon' }}")}, {}, "time="),
        ({"config": Config(jobs.number), "outputs": ["{{ '/tmp' }}/*.csv"]}, {}, "'/tmp/*.csv', which leads out"),
        ({"config": Config(jobs.number), "outputs": "{{ '*.csv' }}"}, {}, "is not a list of patterns"),
        ({"config": Config(jobs.number), "job_executor": "{{ 'nowhere' }}"}, {}, "no executor 'nowhere'"),
        ({"config": "{{ 'nothing' }}"}, {}, "no recipe 'nothing'"),
        (
            {"config": Config(jobs.number), "job_executor": LocalExecutor(python="/no/such/python")},
            {},
            "/no/such/python",
        ),
    ],
)
def test_bad_input_fails_the_task_in_one_line_and_submits_nothing(
    defaults, root, capfd, caplog, arguments, conf, message
):
    with new_dag(default_args={"retries": 2, "retry_delay": datetime.timedelta(0)}) as dag:
        NemoRunOperator(task_id="t", **{**defaults, **arguments})
    states, _ = run(dag, run_conf=conf)
    assert states == {("t", -1): "failed"}
    printed = "".join(capfd.readouterr()) + caplog.text
    assert any(message in line for line in printed.splitlines() if "AirflowFailException" in line), printed
    assert not [folder for folder in jobs_in(root) if (folder / "claim").exists()]


def test_function_of_a_dag_file_is_refused_where_it_is_written():
    def local(x: int) -> int:
        return x

    with pytest.raises(TargetNotImportableError, match="module"):
        Config(local, x=1)
    with pytest.raises(TargetNotImportableError, match="module"):
        Config(lambda: 1)


def test_execution_timeout_holds_while_deferred_and_cancels_the_job(defaults, root, capfd, caplog):
    with new_dag() as dag:
        limit = datetime.timedelta(seconds=8)  # of which the submission takes some on a busy machine
        NemoRunOperator(task_id="t", config=Config(jobs.sleep, seconds=600), execution_timeout=limit, **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "failed"}
    (job,) = jobs_in(root)
    end = json.loads((job / "end.json").read_text())
    assert end["state"] == "cancelled"
    assert "failed (timeout): the job did not end before" in "".join(capfd.readouterr()) + caplog.text


def test_retry_after_a_failure_is_a_new_attempt(defaults, root, tmp_path):
    with new_dag(default_args={"retries": 3, "retry_delay": datetime.timedelta(0)}) as dag:
        NemoRunOperator(
            task_id="t", config=Config(jobs.fail_until, marker=str(tmp_path / "marker"), runs=3), **defaults
        )
    states, results = run(dag)
    assert states == {("t", -1): "success"}
    assert results[("t", -1)] == 3
    assert len(jobs_in(root)) == 3


class WokenByAStray(NemoRunOperator):
    """Gets, the first time, the event of the trigger of an earlier try: on sqlite two triggers may have one number."""

    strays = 1

    def execute_complete(self, context, event):
        if WokenByAStray.strays:
            WokenByAStray.strays -= 1
            outcome = {**event["outcome"], "status": {**event["outcome"]["status"], "state": "cancelled"}, "result": 0}
            event = {**event, "handle": {**event["handle"], "key": "of-an-earlier-try"}, "outcome": outcome}
        return super().execute_complete(context, event)


def test_event_of_an_earlier_try_is_not_taken_for_this_trys(defaults, root, capfd):
    with new_dag() as dag:
        WokenByAStray(task_id="t", config=Config(jobs.number), defer_after=0, **defaults)
    states, results = run(dag)
    assert states == {("t", -1): "success"}
    assert results[("t", -1)] == 21
    assert len(jobs_in(root)) == 1
    assert "The event is that of job of-an-earlier-try of an earlier try" in "".join(capfd.readouterr())


def test_parsing_a_dag_again_makes_no_new_version(tmp_path):
    script = tmp_path / "parse.py"
    script.write_text(f"""
import datetime, sys
sys.path.insert(0, {HERE!r})
import operator_jobs as jobs
from airflow.sdk import DAG, task
from airflow.models.serialized_dag import SerializedDagModel
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from nemo_airflow import *
form = params_from(Config(jobs.train), prefix="p")
with DAG("d", schedule=None, start_date=datetime.datetime(2026, 1, 1), params=form) as dag:
    number = NemoRunOperator(task_id="n", config=Config(jobs.number), packager=GitArchivePackager())
    config = Config(jobs.train, model=Config(jobs.Model, hidden=number.output), tags=["{{{{ ds }}}}"])
    NemoRunOperator(task_id="t", config=config, job_executor=LocalExecutor(), tracker=MLflowTracker())
    configs = [Config(jobs.double, value=v) for v in (1, 2)]
    NemoRunOperator.partial(task_id="m", job_executor=LocalExecutor()).expand(config=configs)
    @task.nemo(job_executor=LocalExecutor())
    def fit(hidden: int):
        return Config(jobs.double, value=hidden)
    fit.expand(hidden=[1, 2])
print(SerializedDagModel.hash(LazyDeserializedDAG.from_dag(dag).data))
""")

    def parse(seed):
        done = subprocess.run(
            [sys.executable, str(script)], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-1]

    assert parse("1") == parse("2")


@pytest.mark.parametrize(
    "model",
    [
        {"_target_": "operator_jobs.DeepModel", "hidden": 5, "name": "deep"},
        "DeepModel(hidden=5, name=deep)",
        "operator_jobs:DeepModel(5, deep)",
    ],
)
def test_a_runs_conf_makes_configs_of_what_the_author_allows(defaults, model):
    dag = overridable(defaults, allow=["operator_jobs."])
    _, results = run(dag, run_conf={"d.overrides": {"model": model, "learning_rate": 0.5}})
    assert results[("t", -1)] == {"hidden": 5, "name": "deep", "learning_rate": 0.5, "tags": None}


@pytest.mark.parametrize(
    ("arguments", "overrides", "message"),
    [
        ({}, {"model": "DeepModel(hidden=5)"}, "model: target 'operator_jobs:DeepModel' is not allowed here"),
        ({}, {"model": {"_target_": "os.system", "command": "id"}}, "model: target 'os:system' is not allowed here"),
        (
            {"allow": ["factory_jobs:deep"]},
            {"model": "factory_jobs:deep(hidden=3)"},
            "model: target 'operator_jobs:DeepModel' is not allowed here",
        ),
        ({}, {"model": "@/etc/passwd.yaml"}, "overrides from the run's conf may not read files"),
        ({"overrides": ["model={{ params['d.overrides'].x }}"]}, {"x": "@/etc/passwd.yaml"}, "'x'"),
        ({"overrides": ["@{{ 'x.yaml' }}"]}, {}, "overrides from the operator's overrides may not read files"),
    ],
)  # fmt: skip
def test_a_runs_conf_can_neither_import_nor_read_what_it_likes(
    defaults, root, capfd, caplog, arguments, overrides, message
):
    states, _ = run(overridable(defaults, **arguments), run_conf={"d.overrides": overrides})
    assert states == {("t", -1): "failed"}
    printed = "".join(capfd.readouterr()) + caplog.text
    assert any(message in line for line in printed.splitlines() if "AirflowFailException" in line), printed
    assert not [folder for folder in jobs_in(root) if (folder / "claim").exists()]


def test_an_authors_own_overrides_may_be_configs(defaults):
    config = Config(jobs.train, model=Config(jobs.Model, hidden=3))
    with new_dag() as dag:
        model = Config(jobs.DeepModel, hidden=7)
        NemoRunOperator(task_id="t", config=config, overrides={"model": model}, **defaults)
    _, results = run(dag)
    assert results[("t", -1)]["hidden"] == 7


def test_a_runs_conf_makes_configs_of_what_is_allowed_on_the_machine(defaults, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_ALLOW", "operator_jobs:DeepModel")
    _, results = run(overridable(defaults), run_conf={"d.overrides": {"model": "DeepModel(5, deep)"}})
    assert results[("t", -1)]["hidden"] == 5


@pytest.mark.parametrize(
    ("setting", "allow", "message"),
    [
        ("os.", [], "$NEMO_AIRFLOW_ALLOW: 'os.' would permit too much"),
        ("", ["operator_jobs"], "allow has 'operator_jobs', which is neither a name"),
    ],
)
def test_an_allow_list_that_is_none_fails_the_task(defaults, root, monkeypatch, capfd, caplog, setting, allow, message):
    monkeypatch.setenv("NEMO_AIRFLOW_ALLOW", setting)
    states, _ = run(overridable(defaults, allow=allow))
    assert states == {("t", -1): "failed"}
    assert message in "".join(capfd.readouterr()) + caplog.text
    assert not [folder for folder in jobs_in(root) if (folder / "claim").exists()]


def test_a_config_of_two_hundred_levels_runs(defaults):
    config = Config(jobs.one_more)
    for _ in range(199):
        config = Config(jobs.one_more, value=config)
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=config, **defaults)
    _, results = run(dag)
    assert results[("t", -1)] == 200
