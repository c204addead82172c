"""Recorded runs are run again from what MLflow has of them, and compared part by part."""

import json
import math
import subprocess
import uuid
from pathlib import Path

import docker
import mlflow
import pytest
import yaml
from test_launch import newest

from nemo_airflow import reproduce, settings
from nemo_airflow.cli import main
from nemo_airflow.launch.records import Records
from nemo_airflow.reproduction.comparing import compare_metrics
from nemo_airflow.tracking.mlflow.recorded import RecordedRun

JOBS = """
import random
from pathlib import Path

import helper
from nemo_airflow.runner import log_input, log_metrics, output_dir


def train(seed: int = 7, lr: float = 0.1, drift: str = "") -> dict:
    values = random.Random(seed)
    for step in range(3):
        log_metrics({"loss": values.random() * lr}, step=step)
    if drift:  # as a library would whose sums come in another order
        log_metrics({"loss": float(Path(drift).read_text())}, step=3)
    Path(output_dir(), "model.txt").write_text(f"{helper.WEIGHTS} {values.random()}")
    return {"seed": seed}
"""


@pytest.fixture
def trainer(project):
    """The project with a job that takes a seed, and a module whose changes are not committed."""
    Path(f"{project}.py").write_text(JOBS)
    Path("helper.py").write_text("WEIGHTS = 'committed'\n")
    commit("trainer")
    Path("helper.py").write_text("WEIGHTS = 'changed'\n")
    return f"{project}:train"


def commit(message):
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", message], check=True)


def run_once(*arguments):
    assert main(["run", *arguments]) == 0
    return newest().tracked.ref.run_id


def reproduced(capsys, run_id, *arguments):
    """The exit code and the report of a reproduction, as JSON."""
    capsys.readouterr()
    code = main(["reproduce", run_id, "-o", "json", *arguments])
    out, err = capsys.readouterr()
    assert out, err
    return code, json.loads(out)


def forget_packages():
    """As on another machine, or after a collection."""
    for path in settings.packages_folder().glob("[0-9a-f][0-9a-f]/*"):
        path.unlink()


def test_a_run_of_a_dirty_tree_comes_out_the_same_after_its_package_and_its_tree_are_gone(trainer, capsys):
    original = run_once(trainer, "seed=3", "--env", "MODE=fast")
    commit("other code by now")
    Path("helper.py").write_text("WEIGHTS = 'other'\n")
    forget_packages()
    code, report = reproduced(capsys, original)
    assert (code, report["same"]) == (0, True), report
    assert report["parts"]["package"]["detail"].endswith("with uncommitted changes")
    assert report["parts"]["metrics"]["detail"] == "1 metric, equal to the last digit"
    assert report["parts"]["seed"]["detail"] == "seed=3"
    assert report["parts"]["variables"]["detail"] == "1 variable"
    client = mlflow.MlflowClient(newest().tracked.ref.uri)
    new = client.get_run(report["other_id"])
    assert new.data.tags["nemo_airflow.reproduces"] == original
    assert new.data.tags["nemo_airflow.reproduction"] == "all the same"
    before = client.get_run(original)
    assert before.data.tags[f"nemo_airflow.reproduced_by.{report['other_id']}"] == report["other_key"]
    assert before.info.experiment_id == new.info.experiment_id
    kept = client.download_artifacts(report["other_id"], "nemo_airflow/reproduction.json")
    assert json.loads(Path(kept).read_text()) == report
    text = Path(client.download_artifacts(report["other_id"], "nemo_airflow/reproduction.txt")).read_text()
    assert "metrics    same: 1 metric, equal to the last digit" in text
    assert main(["lineage", original]) == 0
    assert f"reproduction {report['other_key']} (succeeded, run {report['other_id']})" in capsys.readouterr().out


def test_a_variation_another_library_and_a_tolerance_are_told_apart(trainer, tmp_path, monkeypatch, capsys):
    site = tmp_path / "site"
    (site / "zoo-1.0.dist-info").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.syspath_prepend(site)
    drift = tmp_path / "drift"
    drift.write_text("0.5")
    original = run_once(trainer, f"drift={drift}")
    assert reproduced(capsys, original, "--check")[0] == 0
    (site / "zoo-1.0.dist-info").rename(site / "zoo-1.1.dist-info")
    drift.write_text("0.50000001")
    launched = len(Records().list())

    code, foreseen = reproduced(capsys, original, "--check")
    assert (code, foreseen["other_id"]) == (3, "")
    assert foreseen["parts"]["libraries"]["differences"] == ["~ zoo: 1.0 -> 1.1"]
    assert len(Records().list()) == launched

    assert main(["reproduce", original]) == 4
    out, err = capsys.readouterr()
    assert "nemo-airflow: libraries: differs" in err.partition("submitted job")[0]
    assert "~ zoo: 1.0 -> 1.1" in out
    assert "~ loss: 0.5 -> 0.50000001, a relative difference of 2e-08" in out
    again = newest().key
    code, compared = reproduced(capsys, original, "--against", again, "--tolerance", "1e-6")
    assert (code, compared["same"], compared["results_same"]) == (3, False, True)
    assert compared["parts"]["metrics"]["detail"] == (
        "1 metric, within a relative tolerance of 1e-06; the largest difference is 2e-08, of loss"
    )
    assert (
        reproduced(capsys, original, "--against", again, "--ignore", "lo*")[1]["parts"]["metrics"]["detail"] == "none"
    )

    Path("helper.py").unlink()  # an override is read as the code of the run wants it, not that of now
    report = reproduce(original, overrides=["lr=0.2"], on_line=lambda line: None)
    assert report.exit_code == 4
    assert (report.overrides, report.part("plan").differences) == (("lr=0.2",), ("~ lr: 0.1 -> 0.2",))
    assert report.headline().startswith(f"run {report.other_id} ({report.other_key}), a variation (lr=0.2) of run")
    assert (report.part("package").verdict, report.part("seed").detail) == ("same", "seed=7")


def test_what_cannot_be_reproduced_is_said_in_a_line_and_nothing_is_submitted(trainer, tmp_path, monkeypatch, capsys):
    original = run_once(trainer)
    launched = Records().list()
    client = mlflow.MlflowClient(newest().tracked.ref.uri)
    of_nobody = client.create_run(client.get_run(original).info.experiment_id).info.run_id

    def refusal(*arguments):
        capsys.readouterr()
        assert main(["reproduce", *arguments]) == 2
        [line] = capsys.readouterr().err.splitlines()
        return line.removeprefix("nemo-airflow: ")

    assert refusal("0" * 32).startswith(f"no job or run '{'0' * 32}' is in the MLflow store")
    assert "it is not the run of a job" in refusal(of_nobody)
    assert main(["reproduce", original, "lrr=1"]) == 2
    assert "lrr: train has no parameter 'lrr'; did you mean 'lr'?" in capsys.readouterr().err
    assert refusal(original, "--tolerance", "-1").startswith("tolerance -1 is no relative difference")
    assert "--against compares two runs" in refusal(original, "--against", original, "--check")
    monkeypatch.setenv("NEMO_AIRFLOW_INSTALLATION", "elsewhere")
    assert "is of another installation" in refusal(original)
    assert main(["reproduce", original, "--check", "--on", "local"]) == 0
    monkeypatch.delenv("NEMO_AIRFLOW_INSTALLATION")
    forget_packages()
    Path("patch.diff").write_text(
        "diff --git a/helper.py b/helper.py\n--- a/helper.py\n+++ b/helper.py\n@@ -1 +1 @@\n-x\n+y\n"
    )
    client.log_artifact(original, "patch.diff", "nemo_airflow")
    assert "cannot be applied: git apply" in refusal(original)
    monkeypatch.chdir(tmp_path)
    line = refusal(original)
    assert "is in no repository here" in line
    assert line.endswith("name the repository that has it")
    assert Records().list() == launched


def test_an_image_is_found_by_its_digest_and_one_that_is_gone_is_said(trainer, lab_docker, lab_image, tmp_path, capsys):
    client = docker.DockerClient(base_url=lab_docker)
    name = f"reproduced:{uuid.uuid4().hex[:8]}"
    box = client.containers.create(lab_image, "true")
    image = box.commit(*name.split(":"))
    box.remove()
    where = {"kind": "docker", "container_image": name, "docker_url": lab_docker, "pull": "never"}
    (tmp_path / "executor.yaml").write_text(yaml.safe_dump(where))
    original = run_once(trainer, "--executor", str(tmp_path / "executor.yaml"))
    client.images.get(lab_image).tag(*name.split(":"))  # as a build of the next day
    code, report = reproduced(capsys, original)
    assert (code, report["parts"]["image"]["detail"]) == (0, image.id), report
    for container in client.containers.list(all=True, filters={"ancestor": image.id}):
        container.remove()
    client.images.remove(image.id)
    client.images.remove(name)
    launched = Records().list()
    assert main(["reproduce", original]) == 2
    assert f"image {name} of run {original} is gone from where its jobs run" in capsys.readouterr().err
    assert Records().list() == launched
    client.close()


def run_with(metrics, steps=None):
    return RecordedRun("r", {}, metrics=metrics, steps=steps or dict.fromkeys(metrics, 0))


NAN_AND_INFINITY = {"a": math.nan, "b": math.inf}
LARGEST = "1 metric, within a relative tolerance of 0.1; the largest difference is 0.0099, of a"


@pytest.mark.parametrize(
    ("old", "new", "tolerance", "verdict", "detail"),
    [
        ({"a": 1.0}, {"a": 1.0}, 0.0, "same", "1 metric, equal to the last digit"),
        ({"a": 1.0}, {"a": 1.0 + 2**-52}, 0.0, "differs", "not equal to the last digit"),
        ({"a": 1.0}, {"a": 1.01}, 0.1, "same", LARGEST),
        (NAN_AND_INFINITY, NAN_AND_INFINITY, 0.0, "same", "2 metrics, equal to the last digit"),
        ({"a": math.inf}, {"a": 1e300}, 1.0, "differs", "1 metric, not all within a relative tolerance of 1"),
        ({"a": 0.0}, {"a": 1e-300}, 0.5, "differs", "1 metric, not all within a relative tolerance of 0.5"),
        ({"a": 1.0}, {}, 1.0, "differs", "1 metric, not all within a relative tolerance of 1"),
        ({"system/cpu": 1.0}, {"system/cpu": 2.0}, 0.0, "same", "none"),
    ],
)  # fmt: skip
def test_metrics_are_the_same_within_a_relative_tolerance(old, new, tolerance, verdict, detail):
    part = compare_metrics(run_with(old), run_with(new), tolerance)
    assert (part.verdict, part.detail) == (verdict, detail)


def test_a_metric_whose_last_step_is_another_one_differs():
    part = compare_metrics(run_with({"a": 1.0}, {"a": 9}), run_with({"a": 1.0}, {"a": 8}), 0.1)
    assert part.differences == ("~ a: the last step is 9 -> 8",)
