"""A patch that holds a secret is kept apart, or refused, and never masked in part."""

import datetime
import uuid
from types import SimpleNamespace

import pytest
from airflow.sdk.log import mask_secret
from packaging_cases import commit_files

from nemo_airflow import GitArchivePackager
from nemo_airflow.exceptions import PackagingError, SettingsError
from nemo_airflow.hooks.packaging import PackagingHook
from nemo_airflow.packaging.patches import files_with_secrets
from nemo_airflow.store import PackageStore, open_store


@pytest.fixture
def secret():
    value = f"sesame-{uuid.uuid4().hex}"
    mask_secret(value)
    return value


@pytest.fixture
def package(tmp_path, monkeypatch, secret):
    """Packages a tree of which two uncommitted files hold a secret, as a task does; takes the content of a third."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    code = tmp_path / "code"
    commit_files(code, {"train.py": "print(1)\n", "old.py": f"TOKEN = '{secret}'\n", "clean.py": "print(1)\n"})
    (code / "clean.py").write_text("print(2)\n")

    def make(**texts):
        for name, text in texts.items():
            (code / name).write_text(text)
        dag = SimpleNamespace(fileloc=str(code / "train.py"))
        context = {"ti": SimpleNamespace(), "dag": dag, "run_after": datetime.datetime(2026, 1, 1)}
        return PackagingHook(GitArchivePackager(uncommitted="include", untracked="include")).package(context)

    return make


def published(tmp_path):
    return {entry.name.rpartition(".")[2] for entry in open_store(str(tmp_path / "shared")).entries("packages")}


def test_it_stays_beside_its_package_and_the_log_names_the_files(tmp_path, package, secret, caplog, capfd):
    made = package(**{"train.py": f"TOKEN = '{secret}'\n", "old.py": "TOKEN = None\n"})
    assert made.dirty
    assert (made.patch, made.keeps_patch_apart) == ("", True)
    kept = PackageStore(tmp_path / "home" / "packages").path(made.stored_patch, "patch")
    assert secret in kept.read_text()
    assert "print(2)" in kept.read_text()
    assert published(tmp_path) == {"gz"}
    log = caplog.text + "".join(capfd.readouterr())  # Airflow may have set up logging in this process, or not
    assert "uncommitted changes of old.py, train.py hold a secret" in log
    assert str(kept) in log
    assert secret not in log


def test_a_setting_has_the_task_fail_and_nothing_is_published(tmp_path, package, secret, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_PATCH_WITH_SECRET", "refuse")
    with pytest.raises(
        PackagingError, match=r"changes of train\.py hold a secret that Airflow knows: take it out"
    ) as caught:
        package(**{"train.py": f"TOKEN = '{secret}'\n"})
    assert secret not in str(caught.value)
    assert not (tmp_path / "shared").exists() or published(tmp_path) == set()
    monkeypatch.setenv("NEMO_AIRFLOW_PATCH_WITH_SECRET", "perhaps")
    with pytest.raises(SettingsError, match="neither 'apart' nor 'refuse'"):
        package()


def test_a_patch_without_one_is_published_and_kept_in_the_package(tmp_path, package):
    made = package()
    assert "+print(2)" in made.patch
    assert published(tmp_path) == {"gz", "patch"}


def test_odd_names_of_files_are_named(secret):
    patch = f'diff --git "a/caf\\303\\251.py" "b/caf\\303\\251.py"\n+{secret}\ndiff --git a/b.py b/b.py\n+1\n'
    assert files_with_secrets(patch) == ["caf\\303\\251.py"]
    assert files_with_secrets(f"{secret}\n") == ["a file"]
