"""All that is wrong is told at once, with its place, before anything runs."""

import json
import re
import sys
from pathlib import Path

TEN_FAULTS = """\
_target_: TRAINER.train
model:
  _target_: TRAINER.Model
  kind: rnn
  layers: [4, x, 8, y]
  hiden: 3
data: 5
epochs: many
lr: [1]
rate: 0.1
until: {a: 1}
"""

DAGS = """\
import datetime
from airflow.sdk import DAG, task
from nemo_airflow import Config, GitArchivePackager, NemoRunOperator, Partial, Script
from TRAINER import Model, train

MODEL = Config(
    Model,
    hidden="wide",
    kindd="mlp",
)
UNUSED = Config(Model, hidden=[])

with DAG("bad", start_date=datetime.datetime(2026, 1, 1)):
    NemoRunOperator(
        task_id="train",
        config=Config(train, model=MODEL, epochs="x", until="{{ ds"),
        overrides=["lr=high", "epoch=3"],
        outputs="*.csv",
        defer_after=-1,
    )

with DAG("good", start_date=datetime.datetime(2026, 1, 1)):
    first = NemoRunOperator(task_id="make_rows", config=Config(train, model=Config(Model, hidden=8), data="{{ ds }}"))
    NemoRunOperator(task_id="next", config=Config(train, model=Config(Model, hidden=8), data=first.output))
    sizes = [Config(train, model=Config(Model, hidden=size), data="d") for size in (1, 2)]
    NemoRunOperator.partial(task_id="sizes", overrides=["epochs=2"]).expand(config=sizes)
    NemoRunOperator(task_id="partial", config=Partial(train, Config(Model, 1), "d", epochs=2))
    NemoRunOperator(task_id="script", config=Script(inline="date"))
"""


def test_config_with_ten_faults_is_told_all_of_them_with_their_lines(write, validate):
    module = write(config_yaml=TEN_FAULTS)
    code, out, _ = validate("config.yaml", "--allow", f"{module}.")
    *faults, summary = out.splitlines()
    assert code == 1
    places = [tuple(fault.split(": ")[:2]) for fault in faults]
    assert sorted(places) == sorted(
        [
            ("config.yaml:4", "model.kind"),
            ("config.yaml:5", "model.layers.1"),
            ("config.yaml:5", "model.layers.3"),
            ("config.yaml:6", "model.hiden"),
            ("config.yaml:2", "model.hidden"),
            ("config.yaml:7", "data"),
            ("config.yaml:8", "epochs"),
            ("config.yaml:9", "lr"),
            ("config.yaml:10", "rate"),
            ("config.yaml:11", "until"),
        ]
    )
    assert summary == "10 faults"


def test_dag_files_are_told_all_their_faults_and_the_digests_of_what_is_right(write, validate):
    write(dags__bad_py=DAGS, dags__broken_py="from airflow.sdk import DAG\n\nDAG(int('x'))\n")
    code, out, _ = validate("dags", "-o", "json")
    found = json.loads(out)
    assert code == 1
    faults = {(fault["place"], fault["path"]) for fault in found["faults"]}
    assert faults == {
        ("dags/broken.py:3", ""),
        ("dags/bad.py:6", "model.hidden"),
        ("dags/bad.py:6", "model.kindd"),
        ("dags/bad.py:11", "hidden"),
        ("dags/bad.py:16", "epochs"),
        ("dags/bad.py:14", "lr"),
        ("dags/bad.py:14", "epoch"),
        ("dags/bad.py:14", "data"),
        ("dags/bad.py:14", ""),
        ("dags/bad.py", "until"),
    }
    messages = " ".join(fault["message"] for fault in found["faults"])
    for text in ("invalid literal", "did you mean 'kind'", "did you mean 'epochs'", "defer_after=-1", "outputs"):
        assert text in messages
    digests = {each["name"]: each["digest"] for each in found["configs"]}
    assert set(digests) == {
        f"good.{name}" for name in ("make_rows", "next", "partial", "script", "sizes[0]", "sizes[1]")
    }
    assert len(set(digests.values())) == 6
    [plan] = [each["plan"] for each in found["configs"] if each["name"] == "good.sizes[0]"]
    assert plan["root"]["epochs"] == 2, "overrides are in the digest"
    assert set(found["dags"]) == {"bad", "good"}


def test_the_page_shows_what_is_printed(folder, validate):
    page = (Path(__file__).parents[2] / "docs/testing.md").read_text()
    (folder / "dags").mkdir()
    for name, text in re.findall(r"^```python\n# (dags/\w+\.py)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(f"# {name}\n{text}")
    [shown] = re.findall(r"^```text\n\$ nemo-airflow validate dags\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    sys.modules.pop("trainer", None)
    assert validate("dags")[:2] == (1, shown)
    sys.modules.pop("trainer", None)


def test_config_of_a_module_is_told_what_is_missing_and_what_its_own_check_refuses(write, validate, folder):
    module = write()
    (folder / f"{module}_configs.py").write_text(
        f"from nemo_airflow import Config\nimport {module} as t\n"
        "big = Config(t.train, model=Config(t.Model, hidden=5000))\nfine = Config(t.train, Config(t.Model, 8), 'd')\n"
    )
    names = [f"{module}_configs:{name}" for name in ("big", "fine", "fin")]
    code, out, _ = validate(*names, "no_such_recipe")
    assert code == 1
    recipe, first, second, unknown, digest, _ = out.splitlines()
    assert first.startswith(f"{module}_configs.py:3: data: train requires this parameter")
    assert second == f"{module}_configs.py:3: model: hidden has to be at most 4096"
    assert unknown.startswith(f"{module}_configs:fin: ")
    assert "no recipe 'no_such_recipe'" in recipe
    assert digest.endswith(f"  {module}_configs:fine")


def test_executors_file_is_told_each_wrong_field(write, validate):
    write(
        bad_yaml="kind: slurm\nssh_conn_id: cluster\npartitionn: gpu\nnodes: many\ntime: soon\n",
        good_yaml="kind: slurm\nssh_conn_id: cluster\npartition: gpu\n",
    )
    code, out, _ = validate("bad.yaml", "good.yaml")
    assert code == 1
    assert [line.split(": ")[0] for line in out.splitlines() if "yaml:" in line] == [
        "bad.yaml:3",
        "bad.yaml:4",
        "bad.yaml:5",
    ]
    assert "did you mean 'partition'" in out
    assert out.splitlines()[-2:] == ["slurm         good.yaml", "3 faults, 1 executor"]


def test_file_with_several_executors_is_told_the_faults_of_each(write, validate):
    write(
        all_yaml="a:\n  kind: slurm\n  ssh_conn_id: c\nbox:\n  kind: ssh\n  ssh_con_id: b\nmoon: {kind: rocket}\n",
        list_yaml="- kind: local\n- {kind: docker, num_gpus: many}\n",
    )
    code, out, _ = validate("all.yaml", "list.yaml")
    assert code == 1
    *faults, slurm, local, _ = out.splitlines()
    places = [tuple(fault.split(": ")[:2]) for fault in faults]
    assert places == [
        ("all.yaml:6", "box.ssh_con_id"),
        ("all.yaml:7", "moon"),
        ("list.yaml:2", "1.container_image"),
        ("list.yaml:2", "1.num_gpus"),
    ]
    assert (slurm, local) == ("slurm         all.yaml: a", "local         list.yaml: 0")


def test_commit_is_told_which_configs_packages_and_dag_versions_it_changes(write, validate, commit, folder):
    dag = DAGS.partition('with DAG("good"')[2].replace("data=first", "lr=0.5, data=first")
    head = DAGS.partition("MODEL =")[0]
    body = f'{head}with DAG("good"{dag}'.replace('"make_rows", c', '"make_rows", packager=GitArchivePackager(), c')
    module = write(dags__good_py=body)
    (folder / f"{module}.py").rename(folder / "dags" / f"{module}.py")
    commit()
    code, out, err = validate("dags", "--since", "HEAD")
    assert (code, out) == (0, "no faults, 6 valid configs, 1 DAG, no changes since HEAD\n"), err
    write(dags__good_py=body.replace("lr=0.5", "lr=0.25"))
    code, out, _ = validate("dags", "--since", "HEAD", "-o", "markdown")
    assert code == 0
    assert "| changed | config | `good.next` |" in out
    assert "| changed | package | `good.make_rows` |" in out
    assert "| changed | DAG version | `good` |" in out
    assert "~ lr: 0.5 -> 0.25" in out
    assert "nemo-airflow: --since: revision 'nowhere' is not in" in validate("dags", "--since", "nowhere")[2]
