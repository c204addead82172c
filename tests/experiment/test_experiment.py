"""Experiments run their jobs in order, survive their process, and run again from what was recorded."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest
from airflow.sdk.log import mask_secret
from mlflow import MlflowClient

from nemo_airflow import Config, Experiment, ExperimentPlugin, LocalExecutor, Script, Secret, SlurmExecutor, run
from nemo_airflow.cli import main
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.exceptions import ConfigError, JobFailed, NemoAirflowError, SettingsError
from nemo_airflow.experiment.records import ExperimentRecords
from nemo_airflow.launch.records import Records


@pytest.fixture
def said():
    return []


@pytest.fixture
def experiment(jobs, notes, said):
    executor = LocalExecutor(env={"NOTES": str(notes)})
    return Experiment("trial", executor, tracker=None, say=said.append, on_line=said.append)


def until(condition, what, seconds=300):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"no {what} within {seconds} s"
        time.sleep(0.05)
    return found


def begun(notes):
    return notes.read_text().split() if notes.exists() else []


def test_jobs_run_after_those_on_which_they_depend_and_their_results_come_back(jobs, experiment, notes, said):
    first = experiment.add(Config(jobs.note, name="prep"), name="prep")
    group = experiment.add(
        [Config(jobs.note, name="left"), Config(jobs.note, name="right")], name="train", dependencies=[first]
    )
    experiment.add(Script(inline='echo script >> "$NOTES"'), dependencies=[group], tail_logs=True)
    assert experiment.run() == {"prep": "prep 1", "train": ["left 1", "right 1"], "script": None}
    found = begun(notes)
    assert (found[0], {*found[1:3]}, found[3]) == ("prep", {"left", "right"}, "script")
    assert not [line for line in said if "begun" in line]

    again = Experiment.from_title("trial", on_line=said.append)
    assert Experiment.catalog("trial") == [again.id] == [experiment.id]
    assert {name: job["status"] for name, job in again.status(return_dict=True).items()} == dict.fromkeys(
        ("prep", "train", "script"), "succeeded"
    )
    said.clear()
    again.logs("train", regex="begun")
    assert sorted(said) == ["train-0: begun left", "train-1: begun right"]
    said.clear()
    again.status()
    [table] = said
    assert [line.split()[:3] for line in table.splitlines()[2:]] == [
        [name, "succeeded", "local"] for name in ("prep", "train-0", "train-1", "script")
    ]
    assert again.run() == {"prep": "prep 1", "train": ["left 1", "right 1"], "script": None}
    assert len(begun(notes)) == 4


def test_a_failed_job_ends_all_that_waits_for_it_with_its_name(jobs, experiment, notes, said, capsys):
    experiment.add(Config(jobs.note, name="bad", fails=True), name="prep")
    experiment.add(Config(jobs.note, name="after"), name="train", dependencies=["prep"])
    experiment.add(Config(jobs.note, name="last"), name="eval", dependencies=["train"])
    with pytest.raises(JobFailed, match="prep has failed") as raised:
        experiment.run()
    assert begun(notes) == ["bad"]
    assert raised.value.kind == "user_error"
    line = "train is not started: it waits for prep, which has failed: ValueError: no data for bad"
    assert line in said
    assert main(["experiment", "status", experiment.id, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["jobs"]
    assert [(job["job"], job["status"], job["reason"]) for job in shown] == [
        ("prep", "failed", "ValueError: no data for bad"),
        ("train", "not started", "it waits for prep, which has failed: ValueError: no data for bad"),
        ("eval", "not started", "it waits for train, which was not started"),
    ]
    assert main(["experiment", "attach", "trial", "--quiet"]) == 1
    assert begun(notes) == ["bad"]


def test_a_group_is_ended_when_one_of_its_jobs_fails(jobs, experiment):
    experiment.add(
        [Config(jobs.note, name="left", gate="never"), Config(jobs.note, name="right", fails=True)], name="g"
    )
    with pytest.raises(JobFailed, match="g-1 has failed"):
        experiment.run()
    assert [line.status for line in experiment.look()] == ["cancelled", "failed"]


KILLED = """
from nemo_airflow import Config, Experiment, LocalExecutor
from {module} import note

experiment = Experiment("trial", LocalExecutor(env={{"NOTES": {notes!r}}}), tracker=None)
experiment.add(Config(note, name="first", gate={gate!r}), name="first")
experiment.add(Config(note, name="second"), name="second", dependencies=["first"])
experiment.run()
"""


def test_an_experiment_whose_process_dies_goes_on_in_another_and_runs_each_job_once(jobs, notes, tmp_path, monkeypatch):
    gate = tmp_path / "gate"
    code = KILLED.format(module=jobs.__name__, notes=str(notes), gate=str(gate))
    env = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL)
    until(lambda: begun(notes), "first job")
    [name] = Experiment.catalog()
    with pytest.raises(SettingsError, match=f"another process on this machine runs experiment {name}"):
        Experiment.from_id(name).run()
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = Experiment.from_id(name).look()
    assert [(line.status, line.reason) for line in lines] == [("running", ""), ("waiting", "for first")]
    gate.touch()
    # What the code is by now is not what runs.
    Path(f"{jobs.__name__}.py").write_text("raise ValueError\n")
    assert Experiment.from_id(name).run() == {"first": "first 1", "second": "second 1"}
    assert begun(notes) == ["first", "second"]


def test_a_job_that_its_dying_process_did_not_submit_is_submitted(jobs, experiment, notes):
    experiment.add(Config(jobs.note, name="one"), name="one")
    assert experiment.run() == {"one": "one 1"}
    key = experiment.look()[0].key
    Records().change(key, handle=None, outcome=None, executor={**Records().load(key).executor, "root": "/nowhere"})
    assert Experiment.from_id(experiment.id).run() == {"one": "one 1"}
    assert begun(notes) == ["one", "one"]
    (Records().folder / f"{experiment.look()[0].key}.json").unlink()
    assert Experiment.from_id(experiment.id).run() == {"one": "one 1"}
    assert begun(notes) == ["one"] * 3


def test_an_experiment_runs_again_from_what_was_recorded_and_a_changed_task_is_a_variation(jobs, tmp_path):
    experiment = Experiment("measured")
    experiment.add(Config(jobs.measure, value=1.0), name="same")
    experiment.add(Config(jobs.measure, value=2.0), name="varied")
    assert experiment.run() == {"same": 1, "varied": 1}
    first = experiment.id
    originals = [line.key for line in experiment.look()]
    code = Path(f"{jobs.__name__}.py")
    code.write_text(code.read_text().replace("VERSION = 1", "VERSION = 2"))
    with experiment.reset() as again:
        again.tasks[1].value = 3.0
        assert again.run(sequential=True) == {"same": 1, "varied": 1}
    assert again.id != first
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert len({Records().load(key).tracked.ref.experiment_id for key in originals}) == 1
    for line, original, value, variation in zip(again.look(), originals, (1.0, 3.0), ("", "config"), strict=True):
        run_ = client.get_run(Records().load(line.key).tracked.ref.run_id)
        assert run_.data.metrics["value"] == value
        assert run_.data.tags["nemo_airflow.reproduces"] == Records().load(original).tracked.ref.run_id
        assert run_.data.tags.get("nemo_airflow.variation", "") == variation
        assert run_.data.tags["nemo_airflow.experiment_id"] == again.id
    assert client.get_experiment(run_.info.experiment_id).name == "measured"


def test_an_experiment_runs_in_the_background_and_is_cancelled_from_the_command_line(jobs, experiment, notes, capsys):
    experiment.add(Config(jobs.note, name="first", gate="never"), name="first")
    experiment.add(Config(jobs.note, name="second"), name="second", dependencies=["first"])
    assert experiment.run(detach=True) == {}
    until(lambda: begun(notes), "first job")
    assert main(["experiment", "list", "--title", "trial", "-o", "json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)
    assert (listed["id"], listed["jobs"]) == (experiment.id, ["first", "second"])
    assert main(["experiment", "logs", "trial", "0", "--regex", "begun"]) == 0
    assert capsys.readouterr().out == "begun first\n"
    assert main(["experiment", "cancel", experiment.id, "second"]) == 0
    assert main(["experiment", "cancel", experiment.id, "first"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "nemo-airflow: second will not be submitted", "nemo-airflow: first is cancelled",
    ]  # fmt: skip
    until(lambda: [line.status for line in experiment.look()] == ["cancelled", "not started"], "end")
    assert experiment.look()[1].reason == "it was cancelled before it was started"


def test_ctrl_c_leaves_jobs_that_another_process_goes_on_with(jobs, experiment, notes, said, tmp_path):
    gate = tmp_path / "gate"
    experiment.add(Config(jobs.note, name="first", gate=str(gate)), name="first")

    ended = threading.Event()

    def interrupt():
        until(lambda: begun(notes), "first job")
        while not ended.is_set():  # a clean-up that Python does may swallow one
            os.kill(os.getpid(), signal.SIGINT)
            ended.wait(10)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        experiment.run()
    ended.set()
    thread.join()
    assert f"'nemo-airflow experiment attach {experiment.id}' goes on with all" in said[-1]
    gate.touch()
    assert main(["experiment", "attach", experiment.id]) == 0
    assert begun(notes) == ["first"]


def test_what_cannot_be_submitted_is_said_and_what_waits_for_it_is_not_started(jobs, experiment, notes):
    given = dataclasses.replace(experiment.executor, secrets={"TOKEN": Secret(conn_id="nowhere")})
    experiment.add(
        [Config(jobs.note, name="a", gate="never"), Config(jobs.note, name="b")], [experiment.executor, given], "g"
    )
    experiment.add(Config(jobs.note, name="c"), name="after", dependencies=["g"])
    with pytest.raises(JobFailed, match=r"g-1 is not started: it cannot be submitted: .*nowhere"):
        experiment.run()
    first, second, after = experiment.look()
    # The jobs of a group are submitted side by side: this one may be there before the other one is refused.
    is_there = Records().get(first.key) is not None
    assert first.status == ("cancelled" if is_there else "not started")
    assert (second.status, after.status) == ("not started", "not started")
    assert "it waits for g, which was not started" in after.reason
    assert main(["experiment", "attach", experiment.id, "--quiet"]) == 1
    assert set(begun(notes)) <= {"a"}


def test_a_secret_reaches_the_job_and_no_record(jobs, experiment, notes):
    secret = f"secret-{uuid.uuid4().hex}"
    mask_secret(secret)
    executor = LocalExecutor(env={"NOTES": str(notes), "MARK": secret})
    experiment.add(Config(jobs.note, name=secret), executor, name="one")
    with pytest.raises(ConfigError, match="the config of job one held a secret at name"):
        experiment.run(detach=True)
    assert Experiment.catalog() == []
    experiment.run()
    assert begun(notes) == [secret]
    for path in (*ExperimentRecords().folder.iterdir(), *ConfigVersions().folder.rglob("*.json")):
        assert secret not in path.read_text(), path
        assert path.stat().st_mode & 0o077 == 0 or path.suffix != ".json" or "configs" in path.parts
    with pytest.raises(ConfigError, match=r"the config of job one of experiment trial_\d+ held a secret"):
        experiment.reset()


def test_an_experiment_is_run_again_from_the_command_line_and_old_records_are_collected(
    jobs, experiment, notes, capsys
):
    experiment.add(Config(jobs.note, name="one"), name="one", tail_logs=True)
    experiment.run()
    assert main(["experiment", "reset", "trial", "--quiet"]) == 0
    assert begun(notes) == ["one", "one"]
    records = ExperimentRecords()
    first, again = records.list()
    waiting = dataclasses.replace(again.jobs[0].tasks[0], key="")
    records.create(dataclasses.replace(again, jobs=(dataclasses.replace(again.jobs[0], tasks=(waiting,)),)))
    capsys.readouterr()
    assert main(["experiment", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        record.id for record in reversed(records.list())
    ]
    for path in (*records.folder.iterdir(), *Records().folder.iterdir()):
        os.utime(path, (0, 0))
    assert main(["store", "gc", "--older-than", "1", "--no-keep-runs"]) == 0
    assert "files of records of experiments" in capsys.readouterr().out
    assert not {first.id, again.id} & {record.id for record in records.list()}
    assert len(records.list()) == 1


@dataclasses.dataclass(kw_only=True)
class Marked(ExperimentPlugin):
    mark: str

    def setup(self, task, executor):
        task.name = f"{task.name}-{self.mark}"
        executor.env["MARK"] = self.mark
        executor.time = 120.0


def test_plugins_change_task_and_executor_before_anything_is_submitted(jobs, experiment, notes, said):
    config = Config(jobs.note, name="one")
    experiment.add(config, name="one", plugins=[Marked(mark="changed")])
    assert config.name == "one"
    assert experiment.executor.env == {"NOTES": str(notes)}
    experiment.dryrun()
    assert '"time_limit": 120.0' in "\n".join(said) or '"time_limit":120.0' in "\n".join(said)
    assert not begun(notes)
    assert Experiment.catalog() == []
    assert experiment.run() == {"one": "one-changed changed"}


def test_a_dry_run_needs_no_back_end_and_a_run_without_one_submits_nothing(
    jobs, experiment, notes, said, airflow_database
):
    experiment.add(Config(jobs.note, name="here"), name="here")
    experiment.add(Config(jobs.note, name="there"), executor=SlurmExecutor(ssh_conn_id="nowhere"), name="there")
    experiment.dryrun()
    shown = "\n".join(said)
    assert "#SBATCH" in shown
    assert "\n# the slurm back-end cannot be asked now: connection 'nowhere' is not defined" in shown
    with pytest.raises(NemoAirflowError, match="connection 'nowhere' is not defined"):
        experiment.run()
    assert not begun(notes)


def test_one_task_is_run_by_one_call(jobs, notes, capsys):
    executor = Config(LocalExecutor, env={"NOTES": str(notes)})
    assert run(Config(jobs.note, name="one"), executor, tracker=None) == "one 1"
    assert "begun one" in capsys.readouterr().out.splitlines()


def add(experiment, jobs, *arguments, **named):
    return experiment.add(Config(jobs.note), *arguments, **named)


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (lambda e, j: e.run(), "experiment trial has no jobs: add"),
        (lambda e, j: e.dryrun(), "experiment trial has no jobs: add"),
        (lambda e, j: e.to_dag(), "experiment trial has no jobs: add"),
        (lambda e, j: e.add(j.note), "note is not a config: write Config(note, ...)"),
        (lambda e, j: e.add([Config(j.note)]), "a group of tasks needs a name"),
        (lambda e, j: e.add([], name="g"), "the group 'g' is empty"),
        (lambda e, j: [add(e, j, name="a"), add(e, j, name="a")], "has a job 'a': give this one another name"),
        (lambda e, j: add(e, j, name="a/b"), "the name 'a/b' cannot name files and tasks"),
        (lambda e, j: add(e, j, name="a", dependencies=["a"]), "job 'a' depends on itself, a circle"),
        (lambda e, j: [add(e, j, name="prep"), add(e, j, dependencies=["pret"])], "no job 'pret'; did you mean 'prep'"),
        (lambda e, j: add(e, j, dependencies="prep"), "is a text: give a list of ids, ['prep']"),
        (lambda e, j: add(e, j, executor="kind: dokcer"), "no executor of kind 'dokcer'"),
        (lambda e, j: e.add([Config(j.note)] * 3, [LocalExecutor()] * 2, name="g"), "2 executors for 3 tasks"),
        (lambda e, j: add(e, j, plugins=[object()]), "has no setup(task, executor)"),
        (lambda e, j: add(e, j, plugins=[Wrong()]), "LocalExecutor"),
        (lambda e, j: [add(e, j, name="a"), add(e, j), add(e, j, dependencies=["a"]), e.run(sequential=True)],
         "some jobs have dependencies of their own"),
        (lambda e, j: [e.add(Config(j.measure)), e.run()], "value"),
        (lambda e, j: e.status() or e.logs("a"), "experiment trial was not run yet"),
        (lambda e, j: Experiment("a b"), "the title 'a b' cannot name files"),
        (lambda e, j: Experiment.from_id("trial_1"), "no experiment 'trial_1' was run on this machine"),
        (lambda e, j: Experiment.from_id("../trial"), "is not the id of an experiment"),
        (lambda e, j: Experiment.from_title("trail"), "no experiment with the title 'trail'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_submitted(jobs, experiment, what, says):
    with pytest.raises(NemoAirflowError) as raised:
        what(experiment, jobs)
    assert says in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert ExperimentRecords().list() == []
    assert Records().list() == []


class Wrong(ExperimentPlugin):
    def setup(self, task, executor):
        executor.nodes = 2


def test_a_record_that_is_damaged_is_named_with_what_to_do(jobs, experiment, capsys):
    records = ExperimentRecords()
    records.folder.mkdir(parents=True)
    (records.folder / "trial_1.json").write_text("{")
    assert main(["experiment", "list"]) == 2
    assert "trial_1.json cannot be read" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="delete it to forget that experiment"):
        Experiment.from_id("trial_1")


def test_jobs_are_added_to_no_experiment_that_was_run(jobs, experiment):
    experiment.add(Config(jobs.note, name="one"), name="one")
    experiment.run()
    with pytest.raises(ConfigError, match=r"was run: reset\(\) makes a new one"):
        experiment.add(Config(jobs.note, name="two"))
    with pytest.raises(SettingsError, match="has no job 'oen'; did you mean 'one'"):
        experiment.logs("oen")
    assert experiment.reset().add(Config(jobs.note, name="two"), name="two", dependencies=["one"]) == "two"
