"""What an executor is given is checked where it is written, and a rendered template as soon as it is rendered."""

import dataclasses
import re

import pytest

from nemo_airflow.exceptions import ConfigError, ExecutorArgumentError, ExecutorError
from nemo_airflow.executors import (
    DockerExecutor,
    GridEngineExecutor,
    KubernetesExecutor,
    LocalExecutor,
    PBSExecutor,
    RayExecutor,
    SkypilotExecutor,
    SlurmExecutor,
    SSHExecutor,
    Torchrun,
    executor_from_json,
)

IMAGE = {"container_image": "python:3.12"}
EXECUTORS = [
    (LocalExecutor, {}), (SSHExecutor, {}), (SlurmExecutor, {}), (RayExecutor, {}), (SkypilotExecutor, {}),
    (DockerExecutor, IMAGE), (KubernetesExecutor, IMAGE), (GridEngineExecutor, {}), (PBSExecutor, {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "given", "read"),
    [
        (SlurmExecutor, {"nodes": "2"}, {"nodes": 2}),
        (SlurmExecutor, {"exclusive": "user", "gpus_per_node": "a100:2"}, {}),
        (SlurmExecutor, {"dependencies": ["12"], "srun_args": ("--mpi=pmix",)}, {}),
        (KubernetesExecutor, {**IMAGE, "gpus_per_node": "8"}, {}),
        (KubernetesExecutor, {**IMAGE, "cpus": "500m"}, {}),
        (DockerExecutor, {**IMAGE, "cpus": "1.5", "ttl": "60"}, {"cpus": 1.5, "ttl": 60.0}),
        (RayExecutor, {"entrypoint_num_cpus": "2"}, {"entrypoint_num_cpus": 2.0}),
        (LocalExecutor, {"grace": "5", "time": "60"}, {"grace": 5.0}),
    ],
)
def test_text_becomes_what_the_field_is(kind, given, read):
    executor = kind(**given)
    for name, value in {**given, **read}.items():
        assert getattr(executor, name) == value
        assert isinstance(getattr(executor, name), str) is isinstance(value, str)
    assert executor_from_json(executor.to_json()).to_json() == executor.to_json()


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (KubernetesExecutor, {**IMAGE, "gpus": "none"}, "KubernetesExecutor: gpus: expected int"),
        (SlurmExecutor, {"nodes": "two"}, "SlurmExecutor: nodes: expected int"),
        (SlurmExecutor, {"srun_args": "--mpi=pmix"}, "SlurmExecutor: srun_args: expected"),
        (SlurmExecutor, {"requeue": "perhaps"}, "SlurmExecutor: requeue: expected bool"),
        (LocalExecutor, {"time": "2h"}, "time='2h' is not a time limit"),
        (LocalExecutor, {"env": {"N": 1}}, "LocalExecutor: env"),
        (DockerExecutor, {**IMAGE, "pull": "sometimes"}, "pull='sometimes'"),
    ],
)
def test_wrong_value_is_refused_where_it_is_written(kind, given, message):
    with pytest.raises(ExecutorError, match=re.escape(message)) as caught:
        kind(**given)
    assert isinstance(caught.value, ConfigError)  # so that the task is not tried again


@pytest.mark.parametrize(("kind", "fields"), EXECUTORS)
def test_same_names_mean_the_same_everywhere(kind, fields):
    executor = kind(**fields, gpus_per_node=8, launcher=Torchrun(), time="60", env={"A": "1"})
    assert executor.processes_per_node == 8
    assert "--nproc-per-node=8" in executor.launch()
    assert kind(**fields, gpus_per_node="a100:4", ntasks_per_node=2, launcher=Torchrun()).processes_per_node == 2
    assert kind(**fields, gpus_per_node=8).launch() == ()
    assert executor_from_json(executor.to_json()).to_json() == executor.to_json()


@pytest.mark.parametrize(("kind", "fields"), EXECUTORS)
def test_job_of_several_machines_is_refused_where_there_are_none(kind, fields):
    if kind.spans_nodes:
        assert kind(**fields, nodes=64).nodes == 64
        return
    with pytest.raises(
        ExecutorArgumentError, match=f"{kind.__name__}: nodes=64: its jobs run on one machine; those of"
    ):
        kind(**fields, nodes=64)
    assert kind(**fields, nodes="{{ params.nodes }}").nodes == "{{ params.nodes }}"


@pytest.mark.parametrize(
    ("kind", "alias", "name", "value"),
    [
        (KubernetesExecutor, "gpus", "gpus_per_node", 8),
        (DockerExecutor, "num_gpus", "gpus_per_node", -1),
        (SkypilotExecutor, "num_nodes", "nodes", 4),
        (SkypilotExecutor, "num_nodes", "nodes", "{{ params.n }}"),
    ],
)
def test_back_ends_own_name_is_an_alias(kind, alias, name, value):
    fields = dict(EXECUTORS)[kind]
    executor = kind(**fields, **{alias: value})
    assert getattr(executor, name) == value
    assert executor == kind(**fields, **{name: value})
    assert executor_from_json({"kind": kind.kind, **fields, alias: value}) == executor
    with pytest.raises(ExecutorArgumentError, match=f"two names of one field: give {name} alone"):
        kind(**fields, **{alias: value, name: 7})


@pytest.mark.parametrize(("kind", "fields"), EXECUTORS)
@pytest.mark.parametrize(("name", "what"), [("nodes", "machine"), ("ntasks_per_node", "process on each machine")])
def test_job_has_a_machine_and_a_process(kind, fields, name, what):
    with pytest.raises(ExecutorArgumentError, match=f"{kind.__name__}: {name}=0: a job has at least one {what}"):
        kind(**fields, **{name: 0})


@pytest.mark.parametrize(("kind", "fields"), EXECUTORS)
def test_template_waits_for_its_value_in_every_field(kind, fields):
    for field in dataclasses.fields(kind):
        if field.name in ("launcher", "region", "zone", *kind.aliases):
            continue
        template = "{{ params.x }}"
        within = {"Mapping": {"x": template}, "Sequence": [template]}.get(str(field.type).partition("[")[0], template)
        for value in (template, within):
            assert getattr(kind(**{**fields, field.name: value}), field.name) == value


def test_rendered_template_is_converted_and_checked():
    executor = SlurmExecutor(nodes="{{ params.nodes }}", ntasks_per_node=2, time="{{ params.time }}")
    assert dataclasses.replace(executor, nodes="3", time="30").nodes == 3
    with pytest.raises(ExecutorArgumentError, match="nodes: expected int"):
        dataclasses.replace(executor, nodes="many", time="30")


@pytest.mark.parametrize(
    "name",
    ["output", "error", "open_mode", "open-mode", "dependency", "depend", "job-name", "chdir", "clusters", "parsable",
     "wait", "test-only", "wrap", "export", "quiet", "array", "outp", "requeue"],
)  # fmt: skip
def test_slurm_option_that_undoes_exactly_once_is_refused_by_name(name):
    with pytest.raises(ExecutorArgumentError, match=r"additional_parameters cannot have .*: "):
        SlurmExecutor(additional_parameters={name: "x"})


@pytest.mark.parametrize("name", ["output=/tmp/x", "contiguous --output", "--output", "", "x\ny"])
def test_slurm_option_that_hides_another_is_refused(name):
    with pytest.raises(ExecutorArgumentError, match="write an option's name"):
        SlurmExecutor(additional_parameters={name: True})


@pytest.mark.parametrize("argument", ["--output=x", "-o", "--error=x", "--jobid=1"])
def test_srun_argument_that_takes_the_stream_away_is_refused(argument):
    with pytest.raises(ExecutorArgumentError, match="srun_args cannot have"):
        SlurmExecutor(srun_args=[argument])


@pytest.mark.parametrize("prefix", ["a,b", "a\n", " a", "x" * 101])
def test_job_name_that_squeue_could_not_find_is_refused(prefix):
    with pytest.raises(ExecutorArgumentError, match="job_name_prefix"):
        SlurmExecutor(job_name_prefix=prefix)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"HostConfig": {"AutoRemove": True}}, "autoremove"),
        ({"hostconfig": {"autoremove": True}}, "autoremove"),
        ({"HostConfig": {"LogConfig": {"Type": "none"}}}, "logconfig of type none"),
        ({"HostConfig": {"RestartPolicy": {"Name": "always"}}}, "restartpolicy"),
        ({"Tty": True}, "tty"), ({"Cmd": ["true"]}, "cmd"), ({"Env": ["A=b"]}, "env"), ({"Labels": {}}, "labels"),
    ],
)  # fmt: skip
def test_docker_field_that_undoes_exactly_once_is_refused_by_name(given, name):
    with pytest.raises(ExecutorArgumentError, match=f"additional_kwargs cannot have .*{name}: "):
        DockerExecutor(**IMAGE, additional_kwargs=given)


@pytest.mark.parametrize(
    "template",
    [
        {"spec": {"restartPolicy": "Always"}},
        {"metadata": {"name": "mine"}},
        {"metadata": {"labels": {"nemo-airflow.key": "other"}}},
        {"metadata": {"annotations": {"nemo-airflow/ttl": "1"}}},
        {"spec": {"containers": [{"name": "job", "command": ["true"]}]}},
    ],
)
def test_pod_template_that_undoes_exactly_once_is_refused_by_name(template):
    with pytest.raises(ExecutorArgumentError, match=r"pod_template cannot have|is set by the executor"):
        KubernetesExecutor(**IMAGE, pod_template=template)


@pytest.mark.parametrize(
    "environment",
    [
        {"pip": "requirements.txt"},
        {"uv": "requirements.txt"},
        {"pip": {"packages": "requirements.txt"}},
        {"conda": "environment.yml"},
        {"working_dir": "."},
        {"py_modules": ["./module"]},
    ],
)
def test_file_of_this_machine_in_a_runtime_environment_is_refused_by_name(environment):
    with pytest.raises(ExecutorArgumentError, match="".join(environment)):
        RayExecutor(runtime_env=environment)


def test_what_a_runtime_environment_holds_itself_is_taken():
    environment = {"pip": ["torch"], "conda": "an-environment", "uv": {"packages": ["x"]}, "env_vars": {"A": "b"}}
    assert RayExecutor(runtime_env=environment).runtime_env == environment
