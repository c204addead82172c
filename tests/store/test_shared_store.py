"""A store that several machines share: the same in a folder, over SSH, in S3, Azure and Google's, each for real."""

import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from nemo_airflow.exceptions import SettingsError, StoreError
from nemo_airflow.job import Archive, Package, changes_name
from nemo_airflow.packaging import PackageStore
from nemo_airflow.store import open_store
from nemo_airflow.store.collection import collect
from nemo_airflow.store.incoming import grant
from nemo_airflow.store.trees import get_tree, put_tree

DAY = 86400.0


@pytest.fixture(scope="session")
def gcs():
    from gcp_storage_emulator.server import create_server

    # Buckets with folders are asked about over gRPC, which this server does not speak.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    server = create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    port = server._api._httpd.server_port  # the one that the system gave it
    extra = {"endpoint_url": f"http://127.0.0.1:{port}", "is_anonymous": True, "project": "lab"}
    os.environ["AIRFLOW_CONN_STORE_GCS"] = json.dumps({"conn_type": "google_cloud_platform", "extra": extra})
    yield "gs://store_gcs@bucket"
    server.stop()


@pytest.fixture(
    params=[
        "folder",
        pytest.param("ssh", marks=pytest.mark.lab),
        "s3",
        pytest.param("azure", marks=pytest.mark.lab),
        "gcs",
    ]
)
def url(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "shared")
    if request.param == "ssh":
        return f"ssh://{request.getfixturevalue('ssh_conn_id')}/~/stores/{tmp_path.name}-{os.urandom(4).hex()}"
    return f"{request.getfixturevalue(request.param)}/{tmp_path.name}-{os.urandom(4).hex()}"


@pytest.fixture
def store(url):
    return open_store(url)


@pytest.fixture
def cache(tmp_path):
    return PackageStore(tmp_path / "cache")


def package_in(cache, data=b"x" * 100_000):
    digest = hashlib.sha256(b"content of " + data[:10]).hexdigest()
    with cache.write(digest) as file:
        file.write(data)
    return Package(digest, "tar.gz", len(data))


def archive_of(cache, package):
    return cache.path(package.digest, package.format)


def test_a_package_is_sent_once_and_fetched_by_another_machine(url, cache, tmp_path):
    package = package_in(cache)
    store = open_store(url)
    assert store.put_package(package, archive_of(cache, package)) is True
    assert store.sent == 100_000
    assert store.put_package(package, archive_of(cache, package)) is False
    assert store.sent == 100_000
    elsewhere = PackageStore(tmp_path / "elsewhere")
    path = open_store(url).get_package(package, elsewhere)
    assert path == elsewhere.path(package.digest)
    assert path.read_bytes() == b"x" * 100_000
    assert [file for file in path.parent.iterdir() if file.name.startswith(".new")] == []


def test_what_is_not_there_is_said_in_one_line(store, tmp_path):
    with pytest.raises(StoreError, match=r"^package aaaaaaaaaaaa is not in the store .*: build it again$"):
        store.get_package(Package("a" * 64), PackageStore(tmp_path / "elsewhere"))
    with pytest.raises(StoreError, match="run the job again"):
        get_tree(store, "b" * 64, tmp_path / "out")


def test_damaged_content_is_refused_and_put_anew(store, cache, tmp_path):
    package = package_in(cache)
    store.put_package(package, archive_of(cache, package))
    (blob,) = [entry.name for entry in store.entries("blobs")]
    store.place.write(blob, b"y" * 100_000)  # of the same size
    elsewhere = PackageStore(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="is damaged and was deleted"):
        store.get_package(package, elsewhere)
    assert not elsewhere.path(package.digest).exists()
    assert store.put_package(package, archive_of(cache, package)) is True
    assert store.get_package(package, elsewhere).read_bytes() == b"x" * 100_000


def test_what_broke_off_is_never_used(store, cache, tmp_path):
    package = package_in(cache)
    store.put_blob(archive_of(cache, package), hashlib.sha256(b"x" * 100_000).hexdigest())
    # Its record was never written: to all others it is not there.
    with pytest.raises(StoreError, match="build it again"):
        store.get_package(package, PackageStore(tmp_path / "elsewhere"))
    assert store.put_package(package, archive_of(cache, package)) is False  # the content is not sent again
    assert store.get_package(package, PackageStore(tmp_path / "elsewhere")).is_file()


def test_many_put_and_fetch_the_same_at_once(url, cache, tmp_path):
    package = package_in(cache)
    gate = threading.Barrier(4)

    def put(number):
        gate.wait(300)
        store = open_store(url)
        store.put_package(package, archive_of(cache, package))
        return store.get_package(package, PackageStore(tmp_path / f"machine{number % 2}")).read_bytes()

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(put, range(4))) == {b"x" * 100_000}
    assert len(open_store(url).entries("blobs")) == 1


def test_outputs_come_back_and_what_did_not_change_is_not_sent(store, tmp_path):
    folder = tmp_path / "outputs"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "model.bin").write_bytes(os.urandom(1 << 20))
    for number in range(40):
        (folder / "deep" / f"{number}.txt").write_text(f"file {number}" * 50)
    (folder / "deep" / "er" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "deep" / "er" / "run.sh").chmod(0o755)
    (folder / "empty ä").write_bytes(b"")
    digest = put_tree(store, folder)
    assert store.sent > 1 << 20
    names = get_tree(store, digest, tmp_path / "again")
    assert len(names) == 43
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    assert os.access(tmp_path / "again" / "deep" / "er" / "run.sh", os.X_OK)
    sent = store.sent
    assert put_tree(store, folder) == digest
    assert store.sent == sent
    (folder / "deep" / "er" / "run.sh").write_text("#!/bin/sh\nexit\n")
    assert put_tree(store, folder) != digest
    assert store.sent - sent < 100_000  # not the model


def test_garbage_goes_by_age_and_reference(store, cache, tmp_path):
    kept, dropped = package_in(cache, b"kept" * 1000), package_in(cache, b"drop" * 1000)
    for package in (kept, dropped):
        store.put_package(package, archive_of(cache, package))
    store.hold("run-7", [f"packages/{kept.digest}.tar.gz"])
    assert collect(store, older_than=DAY).records == ()
    found = collect(store, older_than=DAY, later=2 * DAY, dry_run=True)
    assert [entry.name for entry in found.records] == [f"packages/{dropped.digest}.tar.gz"]
    assert store.get_package(dropped, PackageStore(tmp_path / "a")).is_file()
    collect(store, older_than=DAY, later=2 * DAY)
    with pytest.raises(StoreError):
        store.get_package(dropped, PackageStore(tmp_path / "b"))
    assert store.get_package(kept, PackageStore(tmp_path / "b")).is_file()
    store.release("run-7")
    collect(store, older_than=DAY, later=3 * DAY)
    assert store.entries("blobs") == []
    with pytest.raises(StoreError, match="give two hours or more"):
        collect(store, older_than=60)


def test_changes_keep_the_package_that_they_are_of(store, cache, tmp_path):
    base, other = package_in(cache, b"base" * 1000), package_in(cache, b"other" * 1000)
    changes = Archive(changes_name("c" * 64, base.digest), "tar.gz", 10, "package.tar.gz")
    for package in (base, other):
        store.put_package(package, archive_of(cache, package))
    store.put_package(changes, archive_of(cache, other))
    kept = {f"packages/{base.digest}.tar.gz", f"packages/{changes.digest}.tar.gz"}
    collect(store, older_than=DAY, later=2 * DAY, keep={"c" * 64})  # as of a run
    assert {entry.name for entry in store.entries("packages")} == kept
    store.hold("best", [f"packages/{changes.digest}.tar.gz"])
    collect(store, older_than=DAY, later=2 * DAY)
    assert {entry.name for entry in store.entries("packages")} == kept
    assert store.get_package(base, PackageStore(tmp_path / "a")).is_file()
    store.release("best")
    collect(store, older_than=DAY, later=2 * DAY)
    assert store.entries("packages") == store.entries("blobs") == []


def test_this_machines_own_packages_go_by_age(cache, tmp_path, monkeypatch, capsys):
    from nemo_airflow.cli import main

    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    own = PackageStore(tmp_path / "home" / "packages")
    used, unused = package_in(own, b"used" * 1000), package_in(own, b"not used" * 1000)
    for package in (used, unused):
        os.utime(own.path(package.digest), (0, 0))
    half = own.path(unused.digest).with_name(".new-abc")
    half.write_bytes(b"x" * 10)
    os.utime(half, (0, 0))
    assert own.has(used.digest)  # as when it is packaged again, or sent
    assert main(["store", "gc", "--older-than", "1", "--dry-run"]) == 0
    assert "2 files of this machine's packages, 8010 bytes would be freed" in capsys.readouterr().out
    assert main(["store", "gc", "--older-than", "1"]) == 0
    assert own.has(used.digest)
    assert not own.has(unused.digest)
    assert not half.exists()
    assert main(["store", "gc", "--older-than", "0.01"]) == 2
    assert "give two hours or more" in capsys.readouterr().err


def test_a_broken_upload_over_ssh_is_gone_on_with(ssh_conn_id, cache, tmp_path):
    store = open_store(f"ssh://{ssh_conn_id}/~/stores/{os.urandom(4).hex()}")
    data = os.urandom(300_000)
    package = package_in(cache, data)
    sha256 = hashlib.sha256(data).hexdigest()
    store.place.write(f"incoming/{sha256}.part", data[:200_000])  # what an upload that broke off leaves
    store.put_package(package, archive_of(cache, package))
    assert store.get_package(package, PackageStore(tmp_path / "elsewhere")).read_bytes() == data
    other = package_in(cache, b"z" * 5000)
    store.place.write(f"incoming/{hashlib.sha256(b'z' * 5000).hexdigest()}.part", b"not its beginning")
    store.put_package(other, archive_of(cache, other))
    assert store.get_package(other, PackageStore(tmp_path / "elsewhere")).read_bytes() == b"z" * 5000


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path):
    store = open_store(str(tmp_path / "shared"))
    files = [["../evil", 0o644, 0, hashlib.sha256(b"").hexdigest()]]
    digest = hashlib.sha256(json.dumps(files, separators=(",", ":")).encode()).hexdigest()
    store.write_json(f"trees/{digest}", {"files": files, "packs": []})
    with pytest.raises(StoreError, match="leads out of the folder"):
        get_tree(store, digest, tmp_path / "out")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("url", ["s3://key:hidden-secret@bucket/x", "ftp://host/x", "ssh://conn", "s3:///x"])
def test_a_wrong_address_is_refused_without_what_is_secret_in_it(url):
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert "hidden-secret" not in str(caught.value)


def test_a_file_address_with_a_host_is_refused_and_no_other_folder_taken(tmp_path):
    with pytest.raises(SettingsError, match=r"names a host, 'mnt'.*write file:///mnt/shared/nemo"):
        open_store("file://mnt/shared/nemo")
    for address in (f"file://{tmp_path}/a", f"file://localhost{tmp_path}/a"):
        assert open_store(address).place.where == f"{tmp_path}/a"


def test_no_credential_is_shown(s3):
    assert "hidden-secret" not in repr(open_store(f"{s3}/x")) + repr(vars(open_store(f"{s3}/x")))


def test_the_command_line_keeps_fetches_and_collects(tmp_path, capsys, monkeypatch):
    from nemo_airflow.cli import main

    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.txt").write_text("a")
    assert main(["store", "put", str(tmp_path / "run")]) == 0
    digest = capsys.readouterr().out.strip()
    assert main(["store", "get", digest[:12], str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "a.txt").read_text() == "a"
    assert main(["store", "pin", digest[:12], "best"]) == 0
    assert main(["store", "ls"]) == 0
    assert f"trees/{digest}" in capsys.readouterr().out
    assert main(["store", "gc", "--older-than", "1", "--dry-run"]) == 0
    assert "0 packages and outputs" in capsys.readouterr().out
    assert main(["store", "unpin", "best"]) == 0
    assert main(["store", "unpin", "best"]) == 2
    assert "there is no reference 'best'" in capsys.readouterr().err
    monkeypatch.delenv("NEMO_AIRFLOW_STORE")
    assert main(["store", "ls"]) == 2


def test_a_package_that_this_machine_lacks_comes_from_the_shared_store(tmp_path, monkeypatch):
    from nemo_airflow.exceptions import ExecutorError
    from nemo_airflow.executors.bundle import archive_path
    from nemo_airflow.packaging.archive import write_archive
    from nemo_airflow.store.address import publish

    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "worker"))
    package = write_archive({"a.py": b"x = 1\n"}, PackageStore(tmp_path / "worker" / "packages"))
    publish(package)
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "triggerer"))
    path = archive_path(package.archives[0])
    assert path.is_relative_to(tmp_path / "triggerer")
    assert path.stat().st_size == package.size
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "third"))
    monkeypatch.delenv("NEMO_AIRFLOW_STORE")
    with pytest.raises(ExecutorError, match="build it again"):
        archive_path(package.archives[0])


DOES = {
    "folder": (False, False),
    "ssh": (False, False),
    "s3": (True, True),
    "azure": (True, True),
    "gcs": (False, False),  # the lab's connection is anonymous: there is no key
}
"""Whether a store lets jobs write, and read, without a route to it: docs/store.md, "Which store does what"."""


def test_what_a_store_lets_jobs_do_is_what_the_docs_say(store, url):
    kind = {"s3": "s3", "abfs": "azure", "gs": "gcs", "ssh": "ssh"}.get(url.partition("://")[0], "folder")
    can_write = bool(grant(store, "job-1", 60))
    assert (can_write, bool(store.place.sign("blobs/aa/a", 60))) == DOES[kind]


def test_store_of_google_signs_with_the_key_of_a_service_account(monkeypatch):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    account = {
        "type": "service_account", "project_id": "lab", "private_key_id": "1", "private_key": pem, "client_id": "1",
        "client_email": "a@lab.example", "token_uri": "http://127.0.0.1:9/token",
    }  # fmt: skip
    extra = {"keyfile_dict": account, "project": "lab"}
    monkeypatch.setenv("AIRFLOW_CONN_SIGNING", json.dumps({"conn_type": "google_cloud_platform", "extra": extra}))
    url = urlsplit(open_store("gs://signing@bucket/prefix").place.sign("blobs/aa/a", 60))
    assert (url.hostname, url.path) == ("storage.googleapis.com", "/bucket/prefix/blobs/aa/a")
    signed, _, signature = url.query.rpartition("&X-Goog-Signature=")
    query = dict(parse_qsl(signed))
    assert query["X-Goog-Expires"] == "60"
    request = "\n".join(["GET", url.path, signed, f"host:{url.hostname}", "", "host", "UNSIGNED-PAYLOAD"])
    scope = query["X-Goog-Credential"].partition("/")[2]
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = "\n".join(["GOOG4-RSA-SHA256", query["X-Goog-Date"], scope, digest])
    key.public_key().verify(bytes.fromhex(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
