"""Which files are kept, and how they are laid out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from tracking_cases import make_job

from nemo_airflow.job import Job
from nemo_airflow.tracking.artifacts import ArtifactCollector, CollectEverything, files_under, keep


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    for name in ("b.txt", "a.txt", "deep/er/c.ckpt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "outside").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "outside")
    return folder


def test_everything_but_links_is_kept_in_a_fixed_order(outputs: Path, tmp_path: Path) -> None:
    kept = keep(CollectEverything(), make_job("x"), outputs, tmp_path / "kept")
    assert [path.as_posix() for path in kept] == ["a.txt", "b.txt", "deep/er/c.ckpt"]
    assert sorted(files_under(tmp_path / "kept")) == sorted(kept)
    assert (tmp_path / "kept" / "deep/er/c.ckpt").read_text() == "deep/er/c.ckpt"


class Summarizing(ArtifactCollector):
    def collect(self, job: Job, folder: Path) -> Iterable[Path]:
        (folder / "summary.txt").write_text(job.key)
        return [*(path for path in files_under(folder) if path.suffix != ".ckpt"), Path("a.txt")]


def test_a_collector_chooses_and_adds(outputs: Path, tmp_path: Path) -> None:
    job = make_job("x")
    kept = keep(Summarizing(), job, outputs, tmp_path / "kept")
    assert {path.as_posix() for path in kept} == {"a.txt", "b.txt", "summary.txt"}
    assert len(kept) == 3
    assert (tmp_path / "kept" / "summary.txt").read_text() == job.key


class Escaping(ArtifactCollector):
    def collect(self, job: Job, folder: Path) -> Iterable[Path]:
        return [
            Path("../outside"),
            Path("link"),
            Path("missing"),
            folder.parent / "outside",
            Path("deep"),
            Path("a.txt"),
        ]


def test_nothing_from_outside_the_folder_is_kept(outputs: Path, tmp_path: Path) -> None:
    assert keep(Escaping(), make_job("x"), outputs, tmp_path / "kept") == [Path("a.txt")]
