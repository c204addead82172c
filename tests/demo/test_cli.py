"""The command line: what it prints, and one clear line for what is wrong."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import retrain_digits  # noqa: F401 - imports Airflow, which writes into the stderr that it finds then

from nemo_airflow import GitArchivePackager
from nemo_airflow.cli import examples, main
from nemo_airflow.cli.examples import find_dags, find_example_dags
from nemo_airflow.store import PackageStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cli(monkeypatch, capsys):
    """Runs a command in this process; an interpreter of its own costs a second."""

    def run(*arguments, cwd=ROOT / "dags"):
        monkeypatch.chdir(cwd)
        monkeypatch.syspath_prepend(cwd)
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def test_the_program_prints_a_plan_with_overrides_and_says_by_its_exit_code_what_is_wrong():
    def run(*arguments):
        program = Path(sys.executable).parent / "nemo-airflow"
        return subprocess.run([program, *arguments], cwd=ROOT / "dags", capture_output=True, text=True)

    overrides = ("data.until=2026-01-01", "optimizer.learning_rate=0.1", "model.hidden=[8, 4]")
    done = run("plan", "retrain_digits:TRAIN", *overrides)
    assert done.returncode == 0, done.stderr
    assert "learning_rate: 0.1" in done.stdout
    done = run("plan", "retrain_digits:TRIAN")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("nemo-airflow: ")


def test_plan_prints_the_plan_that_a_job_gets(cli):
    plan = json.loads(cli("plan", "--json", "retrain_digits:TRAIN", "data.until=2026-01-01").stdout)
    assert plan["root"]["_target_"] == "digits.train:train"
    assert plan["root"]["optimizer"]["epochs"] == 12


@pytest.mark.parametrize(
    ("executor", "shown"),
    [
        ("kind: local\npython: /opt/python", "/opt/python"),
        ("kind: docker\ncontainer_image: trainer:3\nnum_gpus: 2", '"Image": "trainer:3"'),
        ("kind: ssh\nssh_conn_id: box", '"host": "box"'),
        ("kind: slurm\npartition: gpu\nnodes: 4\nlauncher: {kind: torchrun}", "#SBATCH --partition=gpu"),
        ("kind: kubernetes\ncontainer_image: trainer:3\ngpus: 2", '"nvidia.com/gpu"'),
        ("kind: ray\nentrypoint_num_gpus: 2", '"entrypoint_num_gpus": 2'),
        ("kind: skypilot\ncloud: aws\ngpus: H100", '"accelerators": "H100:1"'),
    ],
    ids=lambda text: text.partition("\n")[0],
)
def test_render_prints_what_would_be_sent_to_each_back_end(cli, executor, shown):
    done = cli("render", "retrain_digits:TRAIN", "data.until=2026-01-01", "--executor", executor)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "digits.train:train" in done.stdout


def test_override_on_the_command_line_names_code_of_ones_own(cli, tmp_path):
    (tmp_path / "cli_zoo.py").write_text(
        "class Net:\n    def __init__(self, hidden: int = 1): pass\nclass Wide(Net): pass\ndef train(net: Net): pass\n"
    )
    (tmp_path / "cli_configs.py").write_text(
        "from nemo_airflow import Config\nimport cli_zoo\nBASE = Config(cli_zoo.train, net=Config(cli_zoo.Net))\n"
    )
    for name in ("Wide", "cli_zoo:Wide"):
        done = cli("plan", "cli_configs:BASE", f"net={name}(hidden=2)", cwd=tmp_path)
        assert "_target_: cli_zoo.Wide" in done.stdout, done.stderr
    assert "not allowed" in cli("plan", "cli_configs:BASE", "net=os:getcwd()", cwd=tmp_path).stderr
    assert "not allowed" in cli("plan", "cli_configs:BASE", "net=fiddle:Config()", cwd=tmp_path).stderr
    (tmp_path / "base.yaml").write_text("_target_: cli_zoo.train\nnet: {_target_: cli_zoo.Net}\n")
    assert "not allowed" in cli("plan", "base.yaml", cwd=tmp_path).stderr  # a file may be anybody's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("render", "retrain_digits:TRAIN", "data.until=2026-01-01", "--executor", "kind: condor"), "kind 'condor'"),
        (("render", "retrain_digits:TRAIN", "data.untl=2026-01-01"), "did you mean 'until'"),
        (("plan", "retrain_digits:TRAIN", "optimizer.lerning_rate=1"), "did you mean 'learning_rate'"),
        (("plan", "retrain_digits:TRAIN", "optimizer.epochs=many"), "optimizer.epochs: expected int"),
        (("plan", "retrain_digits:TRAIN"), "template"),
        (("plan", "retrain_digits:TRIAN"), "TRIAN"),
        (("plan", "no_such_module:x"), "no_such_module"),
        (("plan", "no_colon"), "pkg.mod:name"),
        (("plan", "json:dumps"), "json:dumps"),
        (("demo", "--dags", "nowhere"), "retrain_digits.py"),
        (("ui", "--dags", "nowhere"), "nowhere"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(cli, arguments, message):
    done = cli(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.startswith("nemo-airflow: ")
    _, *place = done.stderr.splitlines()
    assert not place or (len(place) == 2 and place[1].strip() == "^")  # an override, and where in it


def test_without_a_dags_folder_the_demo_runs_a_committed_copy_of_the_example_in_which_changes_stay(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ".demo"
    dags = find_example_dags(None, home)
    assert find_dags(None, home) == dags
    names = {path.relative_to(ROOT / "dags") for path in (ROOT / "dags").rglob("*.py")}
    assert {path.relative_to(dags) for path in dags.rglob("*.py")} == names
    package = GitArchivePackager(subpath="dags").package(PackageStore(tmp_path / "store"), root=dags)
    assert package.commit
    assert not package.dirty
    (dags / "sweep_digits.py").write_text("# mine\n")
    assert find_example_dags(None, home) == dags
    assert (dags / "sweep_digits.py").read_text() == "# mine\n"


def test_library_that_the_demo_lacks_is_named_with_the_command_and_nothing_is_started(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(examples, "LIBRARIES", {"sklearn_not_here": "scikit-learn", "mlflow.not_here": "mlflow"})
    done = cli("demo", "--home", str(tmp_path / "home"))
    assert done.returncode == 2
    assert done.stderr.startswith("nemo-airflow: the example needs scikit-learn and mlflow: run 'pip install")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("command", "option"), [("ui", "--port"), ("demo", "--port"), ("ui", "--mlflow-port")])
def test_port_in_use_is_named_with_the_option_and_nothing_is_started(cli, tmp_path, command, option):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = cli(command, option, port, "--home", str(tmp_path / "home"), "--dags", str(ROOT / "dags"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"nemo-airflow: port {port} cannot be used")
    assert option in done.stderr
    assert not (tmp_path / "home").exists()
