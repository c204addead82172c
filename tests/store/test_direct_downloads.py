"""What a job is given comes straight from the shared store: by signed addresses that a real server checks."""

import concurrent.futures
import dataclasses
import os
import threading
import time

import pytest
from lab.signed_store import signed_store

from nemo_airflow.artifacts import granting
from nemo_airflow.artifacts.keeping import archives_for, keep, keep_stored_artifacts
from nemo_airflow.language.artifact import Artifact, place_in
from nemo_airflow.runner import fetching, inputs
from nemo_airflow.runner.artifacts import read_artifact
from nemo_airflow.runner.fetching import Fetcher, FetchError, segments_of
from nemo_airflow.runner.uploads import Uploader
from nemo_airflow.store import open_store
from nemo_airflow.store.incoming import Incoming, grant

DAY = 86400.0
SEGMENT = 1 << 20


@pytest.fixture(autouse=True)
def small_requests(monkeypatch):
    monkeypatch.setattr(fetching, "SEGMENT", SEGMENT)


@pytest.fixture(scope="module")
def signed():
    with signed_store() as running:
        yield running


def make_store(kind, request, monkeypatch, tmp_path):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    if kind == "azure":
        url = f"{request.getfixturevalue('azure')}/{tmp_path.name}"
    else:
        bucket = request.getfixturevalue("signed" if kind == "signed" else "ceph_bucket")
        monkeypatch.setenv("AIRFLOW_CONN_DIRECT", bucket.connection)
        url = f"s3://direct@bucket/{tmp_path.name}"
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", url)
    return open_store(url)


@pytest.fixture(
    params=["signed", pytest.param("ceph", marks=pytest.mark.lab), pytest.param("azure", marks=pytest.mark.lab)]
)
def any_store(request, monkeypatch, tmp_path):
    """A store in the server of the tests, in Ceph's, and in Azurite: each checks what is signed."""
    return make_store(request.param, request, monkeypatch, tmp_path)


@pytest.fixture
def store(request, monkeypatch, tmp_path, signed):
    signed.forget()
    return make_store("signed", request, monkeypatch, tmp_path)


@pytest.fixture
def made(tmp_path):
    """The outputs of a job: a file of three requests, and a folder of small files, a larger one, and an empty one."""
    folder = tmp_path / "made" / "outputs"
    (folder / "data" / "below").mkdir(parents=True)
    (folder / "model.bin").write_bytes(os.urandom(2 * SEGMENT + 5))
    (folder / "data" / "large.bin").write_bytes(os.urandom(SEGMENT))
    (folder / "data" / "empty").touch()
    (folder / "data" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "data" / "run.sh").chmod(0o755)
    for number in range(300):
        (folder / "data" / "below" / f"{number}.txt").write_text(f"content {number % 290} " * 20)
    return folder


def artifacts_of(made, job=""):
    read = [read_artifact(str(made / name)) for name in ("model.bin", "data")]
    return [dataclasses.replace(each, local="", job=job, output=each.file if job else "") for each in read]


def keep_all(made):
    """Has the worker keep both artifacts in the store."""
    return [keep(each, made / each.file) for each in artifacts_of(made)]


def plan_of(given):
    return {"version": 1, "root": {"_target_": "m:f", **{f"a{n}": each.to_json() for n, each in enumerate(given)}}}


def offered(store, given, seconds=DAY, route=""):
    """Returns the archives of a job that is given these artifacts, and what it gets to fetch them."""
    made = granting.offer(store, plan_of(given), None, seconds, route)
    return archives_for(plan_of(given), made.archives), made.grant


def fetch(folder, given, archives, granted, is_to_end=lambda: False):
    """Has what a runner does in a job's folder done there; returns its lines."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    inputs.bring(str(folder), plan_of(given), archives, Fetcher(str(folder), granted), lines.append, is_to_end)
    return lines


def check(folder, given):
    for each in given:
        assert read_artifact(place_in(str(folder / "inputs"), each)).digest == each.digest


def test_job_fetches_a_file_and_a_folder_that_the_worker_does_not_have(any_store, made, tmp_path, monkeypatch):
    given = keep_all(made)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "another"))
    archives, granted = offered(any_store, given)
    assert [archive.is_fetched for archive in archives] == [True, True]
    assert not (tmp_path / "another" / "packages").exists()
    fetch(tmp_path / "job", given, archives, granted)
    check(tmp_path / "job", given)


def test_job_fetches_what_another_has_sent_straight_to_the_store(any_store, made, tmp_path):
    uploader = Uploader(str(made.parent), grant(any_store, "job-1", DAY))
    uploader.finish()
    assert uploader.wait(300)
    incoming = Incoming(any_store, "job-1")
    manifest = incoming.read(uploader.manifest)
    incoming.accept(manifest, lambda size: None)
    given = artifacts_of(made, "job-1")
    assert keep_stored_artifacts([each.to_json() for each in given], "job-1", any_store, manifest)
    archives, granted = offered(any_store, given)
    assert "files" in granted["archives"][archives[1].name]
    fetch(tmp_path / "job", given, archives, granted)
    check(tmp_path / "job", given)


@pytest.mark.parametrize(
    ("any_store", "reason"),
    [
        ("signed", "AccessDenied: Request has expired"),
        pytest.param("ceph", "AccessDenied", marks=pytest.mark.lab),
        pytest.param("azure", "AuthorizationFailure|AuthenticationFailed", marks=pytest.mark.lab),
    ],
    indirect=["any_store"],
)
def test_address_that_has_expired_is_said_in_one_line_without_it(any_store, made, tmp_path, reason):
    given = keep_all(made)
    archives, granted = offered(any_store, given, seconds=1)
    time.sleep(3)
    with pytest.raises(FetchError, match=rf"^the store at http://\S+ refuses: .*({reason})") as refused:
        fetch(tmp_path / "job", given, archives, granted)
    for secret in Fetcher(str(tmp_path), granted).secrets:
        assert secret not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_address_of_one_blob_reads_no_other(any_store, made, tmp_path):
    given = keep_all(made)
    archives, granted = offered(any_store, given)
    one, other = granted["archives"][archives[0].name]["parts"][0][0], granted["archives"][archives[1].name]["sha256"]
    granted["urls"][other] = granted["urls"][one].replace(one[:2] + "/" + one, other[:2] + "/" + other)
    with pytest.raises(FetchError, match="refuses"):
        fetch(tmp_path / "job", given, archives, granted)


def test_content_that_is_damaged_in_the_store_is_not_taken_and_not_left_on_the_host(store, made, tmp_path):
    given = keep_all(made)
    archives, granted = offered(store, given)
    ((sha256, _, size),) = granted["archives"][archives[0].name]["parts"]
    store.place.write(f"blobs/{sha256[:2]}/{sha256}", bytes(size))
    folder = host_folder(tmp_path, "job")
    with pytest.raises(FetchError, match="is damaged"):
        fetch(folder, given, archives, granted)
    assert list((tmp_path / "host" / "packages").glob("[0-9a-f]*")) == []
    assert [path.name for path in folder.iterdir() if path.name not in ("start.sh", "inputs")] == []


def host_folder(tmp_path, key):
    """Makes the folder of a job on a host, where jobs share what was brought there."""
    folder = tmp_path / "host" / "jobs" / key
    folder.mkdir(parents=True)
    (folder / "start.sh").touch()
    (tmp_path / "host" / "packages").mkdir(exist_ok=True)
    return folder


def test_jobs_of_a_host_that_start_at_once_fetch_once(store, made, tmp_path, signed):
    given = keep_all(made)
    archives, granted = offered(store, given)
    folders = [host_folder(tmp_path, f"job-{number}") for number in range(4)]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(lambda folder: fetch(folder, given, archives, granted), folders))
    for folder in folders:
        check(folder, given)
    moved = sum(size for _, size in signed.fetches)
    assert moved == sum(archive.size for archive in archives)


def test_fetch_that_is_cut_reads_only_that_piece_again(store, made, tmp_path, signed):
    given = keep_all(made)[:1]
    archives, granted = offered(store, given)
    signed.cut_fetch = 2
    fetch(tmp_path / "job", given, archives, granted)
    check(tmp_path / "job", given)
    assert len(signed.fetches) == 3 + 1


def test_store_that_is_not_reached_is_said_in_one_line(store, made, tmp_path):
    given = keep_all(made)
    archives, granted = offered(store, given, route="http://127.0.0.1:9")
    with pytest.raises(FetchError, match=r"the store at http://127\.0\.0\.1:9 cannot be reached from the job: Conn"):
        fetch(tmp_path / "job", given, archives, granted)


def test_job_that_is_told_to_end_does_not_wait_for_a_store_that_does_not_answer(store, made, tmp_path, silent):
    given = keep_all(made)[:1]
    archives, granted = offered(store, given, route=f"http://127.0.0.1:{silent.getsockname()[1]}")
    begun = threading.Event()
    threading.Thread(target=lambda: (silent.accept(), begun.set()), daemon=True).start()
    with pytest.raises(FetchError):
        fetch(tmp_path / "job", given, archives, granted, is_to_end=begun.is_set)


@pytest.fixture
def silent():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_store_in_a_folder_is_read_where_it_is_mounted(made, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "store"))
    given, store = keep_all(made), open_store(str(tmp_path / "store"))
    archives, granted = offered(store, given, route=str(tmp_path / "store"))
    assert [archive.is_fetched for archive in archives] == [True, True]
    fetch(tmp_path / "job", given, archives, granted)
    check(tmp_path / "job", given)
    assert granting.offer(store, plan_of(given), None, DAY) == granting.Offer()


def test_what_is_small_or_not_in_the_store_is_sent_by_the_worker(store, made, tmp_path):
    given = [keep(each, made / "data" / each.file) for each in [read_artifact(str(made / "data" / "run.sh"))]]
    absent = Artifact(digest="a" * 64, size=5 << 20, file="absent.bin")
    assert granting.offer(store, plan_of([*given, absent]), None, DAY) == granting.Offer()


def test_parts_beside_each_other_are_one_request_and_large_ones_several():
    a, b = "a" * 64, "b" * 64
    assert segments_of([[a, 0, 10], [a, 10, 5], [a, 20, 1], [b, 0, 0], [b, 0, SEGMENT + 1]]) == [
        (a, 0, 15),
        (a, 20, 1),
        (b, 0, SEGMENT),
        (b, SEGMENT, 1),
    ]
