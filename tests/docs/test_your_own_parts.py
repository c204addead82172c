"""The packager, the collector and the tracker of the page do their work in one task of a real Airflow."""

import importlib
import json
import re
import sys
from pathlib import Path

import airflow.settings  # noqa: F401 - its logging holds on to the output that is there when it is imported first
import pytest
from dag_database import register

PAGE = (Path(__file__).parents[2] / "docs/your-own-parts.md").read_text()
FILES = dict(re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/train.py").write_text("print(1)\n")
    entry_points = re.search(r"^```toml\n\[.*\]\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[1].replace('"', "")
    info = tmp_path / "own-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[nemo_airflow.trackers]\n{entry_points}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    yield tmp_path
    for name in FILES:
        sys.modules.pop(name.removesuffix(".py"), None)


def test_packager_collector_and_tracker_of_the_page_work_in_one_task(folder, airflow_database):
    dag = importlib.import_module("own_parts_dag").dag
    register(dag)
    [task] = dag.test().get_task_instances()
    assert task.state == "success"
    [run] = (folder / "runs").iterdir()
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["state"] == "succeeded"
    assert recorded["package"]
    assert ["loss", 0, 0.25] in recorded["points"]
    assert recorded["mark"] > 0
    kept = {path.relative_to(run / "files").as_posix() for path in (run / "files").rglob("*") if path.is_file()}
    assert {"release.txt", "left_out.txt"} <= kept
    assert (run / "files/release.txt").read_text() == "1.4"
    assert (run / "files/left_out.txt").read_text() == "a.ckpt"
    assert "a.ckpt" not in kept
