"""Which outputs of a job are kept, and what is said of those that cannot be."""

import io
import os
import tarfile

import pytest
from job_cases import script_job, submit

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors import LocalExecutor
from nemo_airflow.executors.outputs import extract_outputs
from nemo_airflow.follow import Follower
from nemo_airflow.jobs.collecting import collect_outputs


def test_outputs_that_cannot_be_kept_are_named_in_one_warning_and_all_others_are_kept(tmp_path):
    text = (
        'cd "$NEMO_AIRFLOW_OUTPUT_DIR"; echo 1 >model.bin; ln -s gone latest; for i in $(seq 20); do mkfifo p$i; done'
    )
    executor = LocalExecutor(root=str(tmp_path))
    handle = submit(executor, script_job(text))
    outcome = blocking.run(Follower(executor, handle, on_line=print, warn=print).run(), 300)
    assert outcome.succeeded
    warnings, into = [], tmp_path / "outputs"
    counts = outcome.outputs
    blocking.run(collect_outputs(executor, handle, into, counts=counts, inform=print, warn=warnings.append), 300)
    assert {str(path.relative_to(into)) for path in into.rglob("*")} == {"model.bin"}
    [warning] = warnings
    assert "p1 is neither a file" in warning or "latest links to gone" in warning
    assert "and 11 more" in warning


def archive_of(*members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            data = b"data" if kind == tarfile.REGTYPE else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    file.seek(0)
    return file


def test_no_member_of_an_archive_leads_outside(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    members = [
        ("kept", tarfile.REGTYPE, ""),
        ("../escaped", tarfile.REGTYPE, ""),
        (f"{outside}/absolute", tarfile.REGTYPE, ""),
        ("folder", tarfile.SYMTYPE, str(outside)),
        ("hard", tarfile.LNKTYPE, "../outside/x"),
        ("lost", tarfile.LNKTYPE, "never sent"),
        ("chain", tarfile.SYMTYPE, "sub/up"),
        ("sub/up", tarfile.SYMTYPE, "../.."),
        ("again", tarfile.LNKTYPE, "kept"),
        ("device", tarfile.CHRTYPE, ""),
    ]
    left_out = []
    files = extract_outputs(archive_of(*members), tmp_path / "into", left_out.append)
    assert {str(path) for path in files} == {"kept", "again"}
    assert len(left_out) == 8
    assert os.listdir(outside) == []
    assert sorted(os.listdir(tmp_path)) == ["into", "outside"]


@pytest.mark.parametrize("blocks", range(5))
def test_archive_that_was_cut_off_is_not_taken_for_a_whole_one(tmp_path, blocks):
    archive = archive_of(("first", tarfile.REGTYPE, ""), ("second", tarfile.REGTYPE, ""))
    with pytest.raises(BackendUnavailable, match="incomplete"):
        extract_outputs(io.BytesIO(archive.read(blocks * tarfile.BLOCKSIZE)), tmp_path / "into")
