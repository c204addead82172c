"""Every command that the README and the pages show runs as it is shown; what is only looked up says so here."""

import os
import re
import subprocess
import sys
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nemo_airflow import LocalExecutor, blocking
from nemo_airflow.config import plan as plans
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job, Package
from nemo_airflow.launch.records import Records

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(bash|console|sh|shell)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
LOOKED_UP = {
    # beginning of the command: (what its arguments have to be among, why it is not run)
    "make ": (
        TARGETS,
        "minutes to an hour each: .ci/run runs test, lint, lab, lowest, newest and wheel, with the demo",
    ),
    "uvx --from 'nemo-airflow[": (EXTRAS, "it would install from an index: make wheel runs the demo from the wheel"),
    "pip install 'nemo-airflow[": (EXTRAS, "it would install from an index what is tried here"),
}


def commands(page):
    """Returns the commands that a page shows, each with the output that it shows."""
    found = []
    for kind, text in BLOCK.findall(page.read_text()):
        for line in text.splitlines():
            if kind != "console" and line.strip() and not line.startswith("#"):
                found.append((line, []))
            elif kind == "console" and line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            elif kind == "console":
                found[-1][1].append(line)
    return found


SHOWN = {page.relative_to(ROOT).as_posix(): found for page in PAGES if (found := commands(page))}


def looked_up(command):
    """Returns what a command that is not run names, and what that has to be among; None for one that is run."""
    for beginning, (known, _) in LOOKED_UP.items():
        if command.startswith(beginning):
            return set(re.split(r"[\],]", command.removeprefix(beginning).split()[0])[0].split(",")), known
    return None


@pytest.mark.parametrize("page", SHOWN)
def test_targets_and_extras_that_a_page_names_are_there(page):
    for command, _ in SHOWN[page]:
        if (found := looked_up(command)) is not None:
            assert found[0] <= found[1], command


@pytest.fixture
def folder(tmp_path, monkeypatch, mlflow_database):
    """A working folder, and a home of its own for what this project keeps."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return tmp_path / "here"


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def run(folder, shown, replaced):
    """Runs the commands of a page in their order; returns what each printed."""
    printed = []
    for command, output in shown:
        if looked_up(command) is not None:
            continue
        for name, value in replaced.items():
            command = command.replace(name, value)
        done = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, text=True)
        # As diff does, it says by its exit code that there are differences.
        assert done.returncode == (1 if command.startswith("nemo-airflow diff ") else 0), (
            f"{command}\n{done.stdout}{done.stderr}"
        )
        missing = [line for line in output if line.strip() not in [text.strip() for text in done.stdout.splitlines()]]
        assert missing == [], f"{command}\n{done.stdout}"
        printed.append(done.stdout)
    return printed


TRAINER = """
class Net:
    def __init__(self, hidden: int = 8, act: str = "relu"): ...
class Adam:
    def __init__(self, lr: float = 0.1): ...
def train(model: Net, optimizer: Adam, epochs: int = 1): ...
"""


@pytest.fixture
def two_runs(folder):
    """Two runs in MLflow, of two commits, with other values and another library."""
    from nemo_airflow import MLflowTracker

    def commit(text):
        (folder / "train.py").write_text(text)
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
        for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
            subprocess.run([*git, *arguments], cwd=folder, check=True)
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def track(number, lr, torch, text):
        plan = {"version": 1, "root": {"_target_": "train:train", "lr": lr}}
        package = Package(digest=f"{number}" * 64, commit=commit(text))
        tracker = MLflowTracker(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
        job = Job(key=f"k{number}", name="n", plan=plan, package=package)
        run = tracker.open(job, experiment="e", parent="p", shares_filesystem=True)
        environment = {"python": "3.11.7", "host": "n1", "packages": {"torch": torch}}
        tracker.documents(run, tracker.environment(run, environment))
        return f"run:{run.run_id}"

    first = track(1, 0.1, "2.3", "one\ntwo\n")
    return {"run:1f0c3a...": first, "run:77ab21...": track(2, 0.2, "2.4", "one\n2\nthree\n")}


def test_the_readmes_commands_run(folder, two_runs):
    code = (
        "import dataclasses\nfrom nemo_airflow import Config\n"
        "@dataclasses.dataclass\nclass Model:\n    hidden: int = 1\n"
        "def train(model: Model, learning_rate: float, until: str): print('rate', learning_rate)\n"
    )
    [config] = re.findall(r"^`(SMALL = .*)` in `trainer.py`:$", (ROOT / "README.md").read_text(), re.MULTILINE)
    write(folder, {"trainer.py": f"{code}{config}\n"})
    begun, printed, launched = run(folder, SHOWN["README.md"], two_runs)
    assert "nemo-airflow validate dags" in begun
    assert "lr: 0.1 -> 0.2" in printed
    assert launched == "rate 0.001\n"


def test_the_commands_for_running_without_a_dag_run_and_print_what_is_shown(folder):
    page = (ROOT / "docs/run.md").read_text()
    write(folder, {"training.py": re.search(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[1]})
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    without_keys = [(text, [line for line in shown if "KEY" not in line]) for text, shown in SHOWN["docs/run.md"]]
    first, changed, key, listed, *looked_at = run(folder, without_keys, {})
    assert first == "step 0\nstep 1\nstep 2\n"
    assert "# changed since job small-" in changed
    assert key.strip() in listed
    _, _, logs, metrics, attached, _, found, _, _, examined, as_json = looked_at
    assert key.strip() in found
    assert logs.splitlines() == attached.splitlines() == [f"step {step}" for step in range(4)]
    assert metrics.startswith("loss ")
    assert "  ok    git " in examined
    assert "kind: local" in as_json


def test_the_commands_and_examples_for_reproducing_run(folder):
    code = (
        "import random\nfrom nemo_airflow.runner import log_metric\n"
        "def train(seed: int = 7) -> None:\n    log_metric('loss', random.Random(seed).random())\n"
    )
    write(folder, {"training.py": code})
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    run(folder, [("nemo-airflow run training:train", [])], {})
    key = Records().find("last").key
    shown = SHOWN["docs/reproduce.md"]
    checked, again, there, *_ = run(folder, shown, {"RUN": key, "OTHER": key})
    assert "not known" not in checked
    assert "seed=7" in again
    assert "equal to the last digit" in there
    page = (ROOT / "docs/reproduce.md").read_text()
    [function, dag] = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(function.replace("RUN", key), "docs/reproduce.md", "exec"), {})
    names = {}
    exec(compile(dag, "docs/reproduce.md", "exec"), names)
    assert names["dag"].task_ids == ["again"]


def test_the_commands_for_resuming_run(folder):
    from mlflow import MlflowClient

    code = (
        "from nemo_airflow import latest_checkpoint, save_checkpoint\n"
        "def train(steps: int = 100) -> None:\n"
        "    found = latest_checkpoint()\n"
        "    with save_checkpoint(step=steps) as folder:\n"
        "        (folder / 'state').write_text('state')\n"
        "    print('from step', found.values['step'] if found else 0)\n"
        "    assert found, 'cut off'\n"
    )
    write(folder, {"training.py": code})
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], cwd=folder, check=True)
    run(folder, [("nemo-airflow run training:train || true", [])], {})
    first = Records().find("last")
    same, further = run(folder, SHOWN["docs/checkpoints.md"], {"RUN": first.key})
    assert "from step 100" in same
    assert "from step 100" in further
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    [resumed, continued] = [
        client.get_run(record.tracked.ref.run_id) for record in Records().list() if record.key != first.key
    ]
    assert continued.info.run_id == first.tracked.ref.run_id
    assert continued.data.tags["nemo_airflow.state"] == "succeeded"
    assert resumed.data.tags["nemo_airflow.resumes"] == continued.info.run_id
    refused = subprocess.run(["nemo-airflow", "resume", first.key], cwd=folder, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "is done: give what is to be different" in refused.stderr


def test_the_commands_for_differences_run_and_print_what_is_shown(folder, two_runs):
    write(
        folder,
        {
            "pkg/__init__.py": "",
            "pkg/code.py": "class Net:\n    def __init__(self, hidden: int = 8): ...\ndef train(net: Net): ...\n",
            "pkg/mod.py": "from nemo_airflow import Config\nfrom pkg.code import Net, train\n"
            "old = Config(train, net=Config(Net, hidden=4))\nconfig = Config(train, net=Config(Net))\n",
        },
    )
    target = "pkg.code:train"
    digest = ConfigVersions().save(
        {"version": 1, "root": {"_target_": target, "net": {"_target_": "pkg.code:Net", "hidden": 5}}}
    )
    saved = digest or plans.digest(ConfigVersions().load(next(iter(ConfigVersions().list()))))
    first, graph, _ = run(folder, SHOWN["docs/differences.md"], {**two_runs, "3f2a9c": saved[:6]})
    assert "hidden: 4 -> 5" in first
    assert graph is not None
    assert "hidden: 16" in graph


def test_the_commands_for_composition_run(folder, monkeypatch):
    """With an installed distribution that registers ``small``, ``adam`` and ``cluster``."""
    site = folder.parent / "site"
    code = "from nemo_airflow import Config, LocalExecutor\nfrom zoo.nets import Adam, Net, train\n"
    write(
        site,
        {
            "zoo/__init__.py": "",
            "zoo/nets.py": TRAINER.replace("model: Net", "net: Net"),
            "zoo/recipes.py": f"{code}\n"
            "def small(hidden: int = 8) -> Config:\n"
            "    return Config(train, net=Config(Net, hidden=hidden), optimizer=Config(Adam))\n\n"
            "def adam(lr: float = 0.5) -> Config:\n    return Config(Adam, lr=lr)\n",
            "zoo/executors.py": f"{code}cluster = LocalExecutor(grace=7.0)\n",
            "zoo-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: zoo\nVersion: 1.2\n",
            "zoo-1.2.dist-info/entry_points.txt": "[nemo_airflow.recipes]\nsmall = zoo.recipes:small\n"
            "adam = zoo.recipes:adam\n[nemo_airflow.named_executors]\ncluster = zoo.executors:cluster\n",
        },
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    base = "_target_: zoo.nets.train\nnet: {_target_: zoo.nets.Net}\noptimizer: {_target_: zoo.nets.Adam}\n"
    write(folder, {"base.yaml": base, "large.yaml": "_base_: base.yaml\nnet: {hidden: 1024}\n"})
    write(folder, {"cluster.yaml": "epochs: 20\n", "more.yaml": "epochs: 30\n"})
    listed, plan, rendered = run(folder, SHOWN["docs/composition.md"], {})
    assert all(name in listed for name in ("small", "adam", "cluster", "zoo 1.2"))
    assert all(text in plan for text in ("hidden: 1024", "act: tanh", "epochs: 20"))
    assert '"lr": 0.1' in rendered or '"lr":0.1' in rendered
    assert '"grace": 7.0' in rendered or '"grace":7.0' in rendered


def test_the_commands_for_executors_run(folder, airflow_database):
    write(
        folder,
        {
            "net.py": TRAINER,
            "trainer.py": "from nemo_airflow import Config\nfrom net import Adam, Net, train\n"
            "TRAIN = Config(train, model=Config(Net), optimizer=Config(Adam))\n",
            "cluster.yaml": f"kind: local\nroot: {folder.parent / 'jobs'}\n",
        },
    )
    executor = LocalExecutor(root=str(folder.parent / "jobs"))
    write_output = 'echo weights >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": write_output}
    job = Job(key="train-1a2b", name="n", plan={"version": 1, "root": root})
    handle = blocking.run(executor.connect().submit(executor.render(job)))
    follower = Follower(executor, handle, on_line=lambda line: None, warn=lambda text: None)
    assert blocking.run(follower.run(), 300).succeeded
    rendered, shown, cancelled, collected, *folders = run(folder, SHOWN["docs/executors.md"], {"KEY": job.key})
    assert '"hidden": 64' in rendered or '"hidden":64' in rendered
    assert shown == "0 orphans found\n"
    assert cancelled == "0 orphans cancelled\n"
    assert collected == "model.bin\n1 file, 8 bytes, in model\n"
    assert len(folders) == 2


def test_the_commands_for_the_store_run(folder, monkeypatch):
    from nemo_airflow.store import open_store
    from nemo_airflow.store.trees import put_tree

    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(folder.parent / "store"))
    write(folder, {"run/model.bin": "weights"})
    digest = put_tree(open_store(os.environ["NEMO_AIRFLOW_STORE"]), folder / "run")
    listed, *_ = run(folder, SHOWN["docs/store.md"], {"3f2a9c": digest[:6]})
    assert digest[:6] in listed
    assert (folder / "outputs/model.bin").read_text() == "weights"


def test_the_commands_of_the_runner_report_from_a_job(folder, airflow_database):
    from airflow.sdk import DAG
    from dag_database import register
    from mlflow import MlflowClient

    from nemo_airflow import LocalExecutor, NemoRunOperator, Script

    script = "\n".join(["echo weights > model.bin", *(command for command, _ in SHOWN["docs/runner.md"])])
    with DAG("runner_commands", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        executor = LocalExecutor(root=str(folder.parent / "jobs"))
        env = {"PATH": os.environ["PATH"]}
        NemoRunOperator(task_id="t", config=Script(inline=f"set -e\n{script}"), job_executor=executor, env=env)
    register(dag)
    [task] = dag.test().get_task_instances()
    assert task.state == "success"
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    [experiment] = client.search_experiments(filter_string="name = 'runner_commands'")
    [run] = [run for run in client.search_runs([experiment.experiment_id]) if "loss" in run.data.metrics]
    assert [(metric.value, metric.step) for metric in client.get_metric_history(run.info.run_id, "loss")] == [
        (0.25, 100)
    ]
    assert run.data.tags["stage"] == "pretraining"
    assert [each.dataset.digest for each in run.inputs.dataset_inputs] == ["v3"]
    assert "model.bin" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_the_commands_for_tracking_run(folder):
    from mlflow import MlflowClient

    from nemo_airflow import MLflowTracker
    from nemo_airflow.tracking import calls
    from nemo_airflow.tracking.outbox import Outbox
    from nemo_airflow.tracking.run import TrackedRun
    from nemo_airflow.tracking.undelivered import Undelivered

    job = Job(key="train-1a2b", name="n", plan={"version": 1, "root": {"_target_": "train:train", "lr": 0.1}})
    tracker = MLflowTracker(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    outbox = Outbox()
    outbox.put(calls.tags({"dataset": "v2"}))
    Undelivered(job.key, None).keep(TrackedRun(tracker, job, "e", shares_filesystem=True), outbox, "")
    delivered, *rest = run(folder, SHOWN["docs/tracking.md"], {})
    assert delivered.splitlines()[-1].startswith("1 delivered, 0 waiting in ")
    assert all(text.startswith("0 delivered, 0 waiting in ") for text in rest)
    assert len(rest) == 2
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("e")
    tags = [found.data.tags.get("dataset") for found in client.search_runs([experiment.experiment_id])]
    assert "v2" in tags


def test_the_commands_and_the_example_for_promotion_run(folder):
    from mlflow import MlflowClient

    from nemo_airflow.promotion import PromotedModel

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.create_experiment("digits", artifact_location=f"file://{folder.parent}/artifacts")
    model = PromotedModel("digits")
    for version in ("1", "2"):
        run_id = client.create_run(experiment).info.run_id
        client.log_text(run_id, "flavors: {}", "models/net/MLmodel")
        assert model.register(run_id, "net", {}) == version
    model.promote("1", why="the first")
    page = (ROOT / "docs/retraining.md").read_text()
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/retraining.md", "exec"), {})
    listed, *_ = run(folder, SHOWN["docs/retraining.md"], {})
    assert "knows the new scanner" in listed


def test_every_page_with_commands_is_run_here():
    pages = (
        "checkpoints",
        "differences",
        "composition",
        "executors",
        "reproduce",
        "retraining",
        "run",
        "runner",
        "store",
        "tracking",
    )
    with_commands = {page for page, shown in SHOWN.items() if any(looked_up(command) is None for command, _ in shown)}
    with_commands -= {"docs/tutorial.md", "docs/deploying.md"}  # which tests of their own run
    assert with_commands == {"README.md", *(f"docs/{page}.md" for page in pages)}
