"""A job's uploader and the store's side of it: what is sent once, what the server refuses, what is collected."""

import hashlib
import os
import shutil
import socket
import time
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest
from lab.signed_google import signed_google
from lab.signed_store import signed_store

from nemo_airflow.exceptions import StoreError
from nemo_airflow.runner.blob_target import seal, unseal
from nemo_airflow.runner.upload_targets import SendError
from nemo_airflow.runner.uploads import PIECE, Uploader, open_target
from nemo_airflow.store import open_store
from nemo_airflow.store.collection import collect
from nemo_airflow.store.incoming import Incoming, grant
from nemo_airflow.store.shared import blob_name

DAY = 86400.0


@pytest.fixture(scope="module")
def bucket():
    with signed_store() as running:
        yield running


@pytest.fixture
def store(bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW_CONN_DIRECT", bucket.connection)
    bucket.forget()
    return open_store(f"s3://direct@bucket/{tmp_path.name}")


@pytest.fixture(scope="module")
def google():
    # Buckets with folders are asked about over gRPC, which the server behind does not speak.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    with signed_google() as running:
        yield running


FORMS = ["signed", "google", pytest.param("ceph", marks=pytest.mark.lab)]
S3 = ["signed", pytest.param("ceph", marks=pytest.mark.lab)]


@pytest.fixture(params=[*FORMS, pytest.param("azure", marks=pytest.mark.lab)])
def any_store(request, monkeypatch, tmp_path):
    """A store in the servers of the tests, in Ceph's, and in Azurite: each checks what is signed."""
    if request.param == "azure":
        return open_store(f"{request.getfixturevalue('azure')}/{tmp_path.name}")
    server = request.getfixturevalue({"signed": "bucket", "ceph": "ceph_bucket"}.get(request.param, request.param))
    monkeypatch.setenv("AIRFLOW_CONN_DIRECT", server.connection)
    return open_store(f"{'gs' if request.param == 'google' else 's3'}://direct@bucket/{tmp_path.name}")


@pytest.fixture
def job(tmp_path):
    """The folder of a job with a file of several pieces, one of one piece, and small ones of which two are the same."""
    folder = tmp_path / "job"
    (folder / "outputs" / "small").mkdir(parents=True)
    write(folder / "outputs" / "large.bin", 2 * PIECE + 5)
    write(folder / "outputs" / "medium.bin", 1 << 20)
    for number in range(20):
        (folder / "outputs" / "small" / f"{number}.txt").write_text(f"content {number % 19}")
    return folder


def write(path, size):
    block = hashlib.sha512(path.name.encode()).digest() * 16384
    with path.open("wb") as file:
        for offset in range(0, size, len(block)):
            file.write((offset.to_bytes(8, "big") + block[8:])[: size - offset])


def send(folder, given, machine=0):
    """Sends all outputs of a job; returns the uploader, which has ended."""
    uploader = Uploader(str(folder), given, machine)
    uploader.finish()
    assert uploader.wait(300)
    return uploader


def content_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def fetch(store, uploader, into, machines=1):
    incoming = Incoming(store, "job-1")
    manifest = incoming.read(uploader.manifest, machines)
    incoming.accept(manifest, lambda size: None)
    incoming.fetch(manifest, into)
    return manifest


def test_what_a_job_sends_arrives_as_it_was(any_store, job, tmp_path):
    uploader = send(job, grant(any_store, "job-1", DAY))
    assert fetch(any_store, uploader, tmp_path / "again").complete
    assert content_of(tmp_path / "again") == content_of(job / "outputs")
    Incoming(any_store, "job-1").forget()
    assert any_store.entries("incoming") == []


def test_each_of_several_machines_sends_its_own_outputs_and_each_content_is_kept_once(any_store, job, tmp_path):
    for name in ("large.bin", "medium.bin"):
        (job / "outputs" / name).unlink()
    shutil.copytree(job, tmp_path / "second")
    (tmp_path / "second" / "outputs" / "shard").write_bytes(b"of the second")
    (tmp_path / "second" / "outputs" / "link").symlink_to("shard")
    (tmp_path / "third" / "outputs").mkdir(parents=True)
    given = grant(any_store, "job-1", DAY, machines=4)
    first, *_ = [send(folder, given, n) for n, folder in enumerate([job, tmp_path / "second", tmp_path / "third"])]
    with pytest.raises(StoreError, match="machine 3 of the job has not sent all its outputs"):
        fetch(any_store, first, tmp_path / "none", machines=4)
    manifest = fetch(any_store, first, tmp_path / "again", machines=3)
    assert manifest.complete
    contents = [sha256 for pack in manifest.packs for sha256, _ in pack["files"]]
    assert len(contents) == len(set(contents)) == 19 + 1
    second = tmp_path / "again" / "node-1"
    assert os.readlink(second / "link") == "shard"
    assert content_of(second) == content_of(tmp_path / "second" / "outputs")
    shutil.rmtree(second)
    assert content_of(tmp_path / "again") == content_of(job / "outputs")
    Incoming(any_store, "job-1").forget()
    assert any_store.entries("incoming") == []


@pytest.mark.parametrize("any_store", S3, indirect=True)
def test_service_joins_and_copies_files_that_a_job_has_sent(any_store, job, tmp_path):
    manifest = fetch(any_store, send(job, grant(any_store, "job-1", DAY)), tmp_path / "again")
    (pieces,) = manifest.pieces.values()
    prefix = any_store.place.key("out")[1]
    any_store.place.join_out([blob_name(sha256) for sha256, _ in pieces], "bucket", f"{prefix}/large.bin")
    (medium,) = [file for file in manifest.files if file.path == "medium.bin"]
    any_store.place.copy_out(blob_name(medium.sha256), "bucket", f"{prefix}/medium.bin")
    for name in ("large.bin", "medium.bin"):
        assert any_store.place.read(f"out/{name}") == (job / "outputs" / name).read_bytes()


def test_upload_that_is_cut_in_the_midst_goes_on_and_no_piece_is_sent_again(store, job, bucket, tmp_path):
    bucket.cut_at = PIECE + 100
    uploader = send(job, grant(store, "job-1", DAY))
    assert bucket.cut_at is None  # it was cut
    assert uploader.take_warnings() == []
    names = [key for key, _, _ in bucket.posts]
    assert len(names) == len(set(names)) == 3 + 1 + 1 + 1
    fetch(store, uploader, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(job / "outputs")


def test_job_that_is_started_again_sends_only_what_the_store_does_not_have(store, job, bucket):
    first = send(job, grant(store, "job-1", DAY))
    bucket.posts.clear()
    write(job / "outputs" / "new.bin", 1 << 20)
    second = send(job, grant(store, "job-1", DAY))
    assert first.manifest != second.manifest != ""
    assert sorted(size for _, size, _ in bucket.posts)[-1] == 1 << 20
    assert len(bucket.posts) == 2


def test_what_is_announced_is_in_the_store_while_the_job_runs(store, job, bucket):
    uploader = Uploader(str(job), grant(store, "job-1", DAY))
    uploader.announce("medium.bin")
    uploader.announce("../../outside")
    deadline = time.monotonic() + 60
    while (manifest := Incoming(store, "job-1").read()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [file.path for file in manifest.files] == ["medium.bin"]
    assert not manifest.complete
    uploader.finish()
    assert uploader.wait(300)
    names = [key for key, _, _ in bucket.posts if "manifest" not in key]
    assert len(names) == len(set(names)) == 5


@pytest.mark.parametrize("any_store", FORMS, indirect=True)
def test_server_refuses_another_prefix_and_a_grant_that_has_expired_or_was_changed(any_store):
    given = grant(any_store, "job-1", DAY)
    data, sha256 = b"weights", hashlib.sha256(b"weights").hexdigest()
    (name,) = given["fields"].keys() & {"x-amz-signature", "x-goog-signature"}
    changed = {**given, "fields": {**given["fields"], name: "0" * 64}}
    for each, name, reason in (
        ({**given, "prefix": given["prefix"].replace("job-1", "job-2")}, sha256, "Policy Condition failed"),
        ({**given, "prefix": ""}, "blobs/aa/x", "Policy Condition failed"),
        (grant(any_store, "job-1", -10), sha256, "Policy expired"),
        (changed, sha256, "SignatureDoesNotMatch|AccessDenied"),
    ):
        with pytest.raises(SendError, match=f"(?i){reason}") as refused:
            open_target(each).put(name, sha256, len(data), lambda: iter((data,)))
        assert given["fields"]["policy"] not in str(refused.value)
    assert any_store.entries("") == []


@pytest.mark.lab
def test_azure_refuses_another_blob_reading_and_a_grant_that_has_expired_or_was_changed(azure, tmp_path):
    store = open_store(f"{azure}/{tmp_path.name}")
    given, key = grant(store, "job-1", DAY), {"sealing-key": "0" * 64}
    signatures = unseal(given["blobs"], given["fields"]["sealing-key"])
    first, *rest = signatures.values()
    other = dict(zip(signatures, [*rest, first], strict=True))  # each has that of its neighbour
    for each, reason in (
        ({**given, "url": given["url"].replace("job-1", "job-2")}, "AuthorizationFailure|AuthenticationFailed"),
        ({**given, "blobs": seal(other, key["sealing-key"]), "fields": key}, "AuthorizationFailure|Authentication"),
        (grant(store, "job-1", -10), "AuthorizationFailure|AuthenticationFailed"),
    ):
        with pytest.raises(SendError, match=reason) as refused:
            open_target(each).put("a" * 64, "a" * 64, 7, lambda: iter((b"weights",)))
        assert not any(signature in str(refused.value) for signature in signatures.values())
    assert store.entries("") == []
    stored = open_target(given).put("a" * 64, "a" * 64, 7, lambda: iter((b"weights",)))
    address = f"{given['url']}{stored}?{given['query']}&sig={quote(signatures[stored], safe='')}"
    for method in ("GET", "DELETE"):
        with pytest.raises(HTTPError, match="403"):
            urlopen(Request(address, method=method))
    assert store.place.read(f"incoming/job-1/{stored}") == b"weights"


@pytest.mark.lab
def test_job_on_azure_that_is_started_again_goes_on_in_other_blobs(azure, job, tmp_path):
    store = open_store(f"{azure}/{tmp_path.name}")
    given = grant(store, "job-1", DAY)
    first = send(job, given)
    before = {entry.name: entry.wanted_at for entry in store.entries("incoming/job-1") if "manifest" not in entry.name}
    write(job / "outputs" / "new.bin", 1 << 20)
    second = send(job, given)
    assert first.manifest != second.manifest != ""
    after = {entry.name: entry.wanted_at for entry in store.entries("incoming/job-1") if "manifest" not in entry.name}
    assert len(after.keys() - before) == 1
    assert {name: after[name] for name in before} == before
    fetch(store, second, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(job / "outputs")


def test_more_pieces_than_there_are_blobs_leave_the_outputs_to_the_worker_with_one_line(job):
    blobs = seal({"manifest.json": "s"}, "k")
    uploader = send(job, {"url": "http://127.0.0.1:9/c/", "query": "", "blobs": blobs, "fields": {"sealing-key": "k"}})
    assert uploader.manifest == ""
    (line,) = uploader.take_warnings()
    assert "the outputs are in more pieces than" in line


def test_piece_that_is_damaged_on_its_way_is_refused(store):
    with pytest.raises(SendError, match="BadDigest"):
        open_target(grant(store, "job-1", DAY)).put("a", "0" * 64, 7, lambda: iter((b"weights",)))
    assert store.entries("incoming") == []


def test_expired_grant_leaves_the_outputs_to_the_worker_with_one_line(store, job):
    uploader = send(job, grant(store, "job-1", -10))
    assert uploader.manifest == ""
    (line,) = uploader.take_warnings()
    assert "worker collects them" in line
    assert "Policy expired" in line


def test_piece_or_manifest_that_is_not_what_it_says_is_not_accepted(any_store, job):
    uploader = send(job, grant(any_store, "job-1", DAY))
    incoming = Incoming(any_store, "job-1")
    manifest = incoming.read(uploader.manifest)
    piece = next(iter(manifest.blobs))
    name = f"incoming/job-1/{manifest.names.get(piece, piece)}"
    any_store.place.write(name, b"another")
    with pytest.raises(StoreError, match="is not what its name says"):
        incoming.accept(manifest, lambda size: None)
    any_store.place.write("incoming/job-1/manifest.json", b"{}")
    with pytest.raises(StoreError, match="is not what the job has sent"):
        incoming.read(uploader.manifest)
    with pytest.raises(StoreError, match="is not a list of outputs"):
        incoming.read()


def test_collection_deletes_what_nobody_came_back_for_and_keeps_what_a_job_may_still_send(store, job):
    uploader = send(job, grant(store, "job-1", DAY))
    assert uploader.manifest
    assert collect(store, older_than=DAY, later=7 * DAY).incoming == ()
    assert len(collect(store, older_than=DAY, later=9 * DAY).incoming) == 6
    assert store.entries("incoming") == []


def test_job_that_is_told_to_end_does_not_wait_for_a_store_that_does_not_answer(job):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/bucket"
        uploader = Uploader(str(job), {"url": url, "prefix": "p/", "fields": {}})
        uploader.finish()
        silent.accept()
        uploader.stop()
        assert uploader.wait(30)
    (line,) = uploader.take_warnings()
    assert "the job was told to end" in line
    assert uploader.manifest == ""


def test_job_that_is_told_to_end_does_not_wait_for_more_to_be_announced(job, tmp_path):
    folder = tmp_path / "store" / "incoming" / "job-1"
    folder.parent.parent.mkdir()
    uploader = Uploader(str(job), {"folder": str(folder)})
    uploader.announce("medium.bin")
    deadline = time.monotonic() + 60
    while not (folder / "manifest.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not uploader.wait(0.5)
    uploader.stop()
    assert uploader.wait(30)
    assert uploader.manifest == ""


def test_two_thousand_small_files_travel_in_few_requests(store, bucket, tmp_path):
    folder = tmp_path / "job"
    for number in range(2000):
        path = folder / "outputs" / str(number % 50) / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {number} " * 60)
    uploader = send(folder, grant(store, "job-1", DAY))
    assert len(bucket.posts) == 2
    fetch(store, uploader, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(folder / "outputs")


def test_store_in_a_folder_that_is_mounted_on_the_jobs_host_is_written_there(job, tmp_path):
    store = open_store(str(tmp_path / "store"))
    uploader = send(job, grant(store, "job-1", DAY, str(tmp_path / "store")))
    manifest = fetch(store, uploader, tmp_path / "again")
    assert content_of(tmp_path / "again") == content_of(job / "outputs")
    name = f"incoming/job-1/{next(iter(manifest.blobs))}"
    (tmp_path / "store" / name).write_bytes(b"?" * store.place.stat(name).size)
    store.delete([f"blobs/{name[15:17]}/{name[15:]}"])
    with pytest.raises(StoreError, match="is not what its name says"):
        Incoming(store, "job-1").accept(manifest, lambda size: None)
    Incoming(store, "job-1").forget()
    assert list((tmp_path / "store" / "incoming").iterdir()) == []


def test_folder_that_is_not_mounted_leaves_the_outputs_to_the_worker_with_one_line(job, tmp_path):
    uploader = send(job, {"folder": str(tmp_path / "nowhere" / "incoming" / "job-1")})
    assert uploader.manifest == ""
    (line,) = uploader.take_warnings()
    assert "the store is not mounted there" in line
    assert grant(open_store(str(tmp_path / "store")), "job-1", DAY) == {}
