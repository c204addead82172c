"""What of an operator's arguments is a template, what comes out of one, and how a text is kept from being one."""

import datetime
import json

import pytest
import rendering_jobs as jobs
from airflow.sdk import literal, task
from operator_dags import jobs_in, new_dag, run

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, Script, params_from
from nemo_airflow.config import apply_overrides, build, from_yaml, validate
from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors import Processes, ScriptTemplate

pytestmark = pytest.mark.usefixtures("airflow_database")

CHAT = "{% for m in messages %}{{ m }}{% endfor %}"
LATEX = r"\frac{{a}}{{b}}"


def printed(capfd, caplog):
    return "".join(capfd.readouterr()) + caplog.text


def test_a_literal_text_reaches_the_job_as_it_is(defaults):
    with new_dag() as dag:
        config = Config(jobs.texts, literal(CHAT), version=literal(LATEX), many=[literal("{{ a }}"), "{{ 1 + 1 }}"])
        NemoRunOperator(task_id="config", config=config, **defaults)
        shell = literal("test '{{.Names}}' = \"$GO\"")
        env = {**defaults.pop("env"), "GO": literal("{{.Names}}")}
        NemoRunOperator(task_id="script", config=Script(inline=shell), env=env, **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert results[("config", -1)] == [CHAT, LATEX, None, ["{{ a }}", "2"]]


@pytest.mark.parametrize("native", [False, True])
def test_what_comes_out_of_rendering_is_a_value(defaults, native):
    with new_dag(render_template_as_native_obj=native) as dag:

        @task
        def upstream():
            return CHAT

        config = from_yaml(
            "_target_: rendering_jobs.texts\nprompt: '{% raw %}Hi {{ user }}{% endraw %}'", ["rendering_jobs."]
        )
        config.anything = upstream()
        NemoRunOperator(task_id="raw", config=config, **defaults)
        pulled = Config(jobs.texts, "{{ ti.xcom_pull(task_ids='upstream') }}")
        NemoRunOperator(task_id="pulled", config=pulled, **defaults) << config.anything.operator
        NemoRunOperator(
            task_id="overridden", config=Config(jobs.texts, "?"), overrides={"prompt": literal(CHAT)}, **defaults
        )

        @task.nemo(**defaults)
        def decorated(text):
            return Config(jobs.texts, text, version=literal(text), many=["{{ 1 + 1 }}"])

        decorated(config.anything)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert results[("raw", -1)] == ["Hi {{ user }}", "", CHAT, None]
    for name in ("pulled", "overridden"):
        assert results[(name, -1)][0] == CHAT
    assert results[("decorated", -1)] == [CHAT, CHAT, None, ["2"]]


def test_a_value_of_the_trigger_form_is_no_template(defaults):
    config = Config(jobs.texts, "Hello", version=literal("{{ kept }}"))
    fields = params_from(config, prefix="p")
    assert fields["p.version"].value == "{{ kept }}"
    with new_dag(params=fields) as dag:
        NemoRunOperator(task_id="t", config=config, params_prefix="p", **defaults)
    conf = {"p.prompt": "Hi {{ user }}", "p.overrides": {"anything": {"template": CHAT}}}
    _, results = run(dag, run_conf=conf)
    assert results[("t", -1)] == ["Hi {{ user }}", "{{ kept }}", {"template": CHAT}, None]


def test_an_override_may_be_a_literal(defaults):
    config = apply_overrides(Config(jobs.texts, "?"), {"prompt": literal(CHAT)})
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=config, **defaults)
    _, results = run(dag)
    assert results[("t", -1)][0] == CHAT


def test_a_literal_is_a_value_without_airflow_too():
    config = Config(jobs.texts, literal(CHAT), many=literal([LATEX]))
    validate(config)
    assert build(config) == [CHAT, "", None, [LATEX]]
    assert plans.flatten(plans.to_plan(config))["prompt"] == CHAT
    with pytest.raises(ConfigError, match=r"prompt: the template .* was not rendered.*literal\(\.\.\.\)"):
        validate(Config(jobs.texts, CHAT))


def test_texts_without_a_template_stay_texts_where_rendering_gives_native_objects(defaults):
    with new_dag(render_template_as_native_obj=True, params={"version": "1.10", "none": "None"}) as dag:
        config = Config(jobs.texts, "12", version="1.10", anything="012", many=["1", "None"])
        NemoRunOperator(task_id="plain", config=config, **defaults)
        script = Script(inline='test "$1 $2" = "--seed 12"', args=["--seed", "12"])
        NemoRunOperator(task_id="script", config=script, **defaults)
        templates = Config(
            jobs.texts, "{{ params.version }}", version="{{ params.none }}", anything="{{ params.version }}"
        )
        NemoRunOperator(task_id="templates", config=templates, **defaults)
        env = {**defaults.pop("env"), "SEED": "12", "VERSION": "{{ params.version }}"}
        config = Config(jobs.environment, names=["SEED", "VERSION"])
        NemoRunOperator(task_id="env", config=config, env=env, **defaults)
    states, results = run(dag)
    assert set(states.values()) == {"success"}
    assert results[("plain", -1)] == ["12", "1.10", "012", ["1", "None"]]
    assert results[("templates", -1)] == ["1.10", "None", 1.1, None]
    assert results[("env", -1)] == ["12", "1.10"]


def test_native_objects_reach_where_they_fit(defaults):
    with new_dag(render_template_as_native_obj=True, params={"count": 3, "rate": "1e-3", "many": ["a", "b"]}) as dag:
        NemoRunOperator(
            task_id="numbers", config=Config(jobs.numbers, "{{ params.count }}", rate="{{ params.rate }}"), **defaults
        )
        NemoRunOperator(task_id="texts", config=Config(jobs.texts, "x", many="{{ params.many }}"), **defaults)
    _, results = run(dag)
    assert results[("numbers", -1)] == [3, 0.001]
    assert results[("texts", -1)][3] == ["a", "b"]


@pytest.mark.parametrize("native", [False, True])
def test_fields_of_an_executor_are_converted_by_their_annotations(defaults, root, native):
    del defaults["job_executor"]
    params = {"grace": "7", "processes": 2, "home": "1.5"}
    with new_dag(params=params, render_template_as_native_obj=native) as dag:
        executor = LocalExecutor(
            root=str(root), grace="{{ params.grace }}", time="0:01:{{ params.grace }}",
            launcher=Processes(nproc_per_node="{{ params.processes }}"), env={"HOME": "{{ params.home }}"},
        )  # fmt: skip
        script = Script(inline='test "$WORLD_SIZE $HOME" = "2 1.5"')
        NemoRunOperator(task_id="t", config=script, job_executor=executor, **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "success"}
    [job] = jobs_in(root)
    assert json.loads((job / "job.json").read_text())["grace"] == 7


def test_a_wrong_value_for_a_field_of_an_executor_fails_the_task_with_its_name(defaults, root, capfd, caplog):
    executor = LocalExecutor(root=str(root), grace="{{ 'long' }}")
    with new_dag(default_args={"retries": 2, "retry_delay": datetime.timedelta(0)}) as dag:
        NemoRunOperator(task_id="t", config=Script(inline="true"), **{**defaults, "job_executor": executor})
    states, _ = run(dag)
    assert states == {("t", -1): "failed"}
    assert "AirflowFailException: grace: expected float, got 'long'" in printed(capfd, caplog)
    assert jobs_in(root) == []


@pytest.mark.parametrize("as_config", [False, True])
def test_a_launchers_own_template_is_not_airflows(defaults, root, tmp_path, as_config):
    text = 'echo "{{ day }} {{ processes }}" > {{ file }}; {{ command }}'
    variables = {"day": "{{ ds }}", "file": str(tmp_path / "said")}
    if as_config:
        launcher = Config(ScriptTemplate, text=text, variables=variables)
        executor = Config(LocalExecutor, root=str(root), launcher=launcher)
    else:
        executor = LocalExecutor(root=str(root), launcher=ScriptTemplate(text=text, variables=variables))
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.numbers, 4), **{**defaults, "job_executor": executor})
    states, results = run(dag, logical_date=datetime.datetime(2026, 2, 3, tzinfo=datetime.UTC))
    assert states == {("t", -1): "success"}
    assert results[("t", -1)] == [4, 0.0]
    assert (tmp_path / "said").read_text() == "2026-02-03 1\n"


def test_a_text_that_only_has_the_mark_of_a_comment_is_no_template(defaults):
    with new_dag() as dag:
        script = 'files=(a b); test "${#files[@]} $GO" = "2 {#x"'
        env = {**defaults.pop("env"), "GO": "{#x"}
        NemoRunOperator(task_id="t", config=Script(inline=script), env=env, **defaults)
    states, _ = run(dag)
    assert states == {("t", -1): "success"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config": Script(inline="echo ${#files[@]} {{ ds }}")}, "inline: the template 'echo ${#files[@]} {{ ds }}'"),
        ({"config": Script(inline="docker ps --format '{{.Names}}'")}, 'inline: the template "docker ps'),
        ({"config": Config(jobs.texts, "x", many=["a", "{{ nothing }}"])}, "many.1: the template '{{ nothing }}'"),
        ({"env": {"FORMAT": "{{.Names}}"}}, "the template '{{.Names}}'"),
        ({"overrides": ["prompt={{ user }}"]}, "the template 'prompt={{ user }}'"),
        ({"outputs": ["{%t}"]}, "the template '{%t}'"),
        ({"config": Config(jobs.texts, "{% t }" * 1000)}, "prompt: the template '{% t }"),
    ],
)
def test_a_text_that_cannot_be_rendered_is_named_with_the_way_to_write_it_and_not_tried_again(
    defaults, root, capfd, caplog, arguments, message
):
    with new_dag(default_args={"retries": 2, "retry_delay": datetime.timedelta(0)}) as dag:
        NemoRunOperator(task_id="t", **{"config": Config(jobs.texts, "x"), **defaults, **arguments})
    states, _ = run(dag)
    assert states == {("t", -1): "failed"}
    [line] = {
        line.partition("AirflowFailException: ")[2].rstrip("'\"")
        for line in printed(capfd, caplog).splitlines()
        if "AirflowFailException: " in line
    }
    assert line.startswith(message)
    assert "literal(...) of airflow.sdk" in line
    assert len(line) < 400
    assert jobs_in(root) == []
