"""Packages of Python distributions: wheels, as pip installs them."""

import subprocess
import sys
import zipfile

import pytest
from packaging_cases import lay

from nemo_airflow import DistributionPackager, HybridPackager
from nemo_airflow.exceptions import PackagingError

CODE = {
    "nemo_sample/__init__.py": "VALUE = 42\n\n\ndef main():\n    print(VALUE)\n",
    "nemo_sample/data/table.csv": "1,2\n",
}


def wheel_of(files, folder, name="nemo_sample-1.2-py3-none-any.whl", about="Root-Is-Purelib: true\n"):
    """Writes a wheel as the specification of the binary distribution format has it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = "nemo_sample-1.2.dist-info"
    metadata = "Metadata-Version: 2.1\nName: nemo-sample\nVersion: 1.2\n"
    entries = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\n{about}Tag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nnemo-sample = nemo_sample:main\n",
    }
    record = "".join(f"{each},,\n" for each in [*entries, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / name, "w") as archive:
        for each, text in {**entries, f"{info}/RECORD": record}.items():
            archive.writestr(each, text)
    return folder / name


@pytest.fixture
def wheel(tmp_path):
    return wheel_of({**CODE, "nemo_sample-1.2.data/scripts/tool": "#!python\n"}, tmp_path / "dist")


@pytest.fixture
def installed(wheel, tmp_path, monkeypatch):
    """The wheel, as pip installs it, on this process's path."""
    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        str(site),
        str(wheel),
    ]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monkeypatch.syspath_prepend(str(site))
    return site


def test_a_wheel_is_shipped_as_a_job_can_import_it(wheel, store, contents):
    shipped = contents(DistributionPackager(wheel=str(wheel)).package(store))
    assert set(shipped) == {
        "nemo_sample/__init__.py", "nemo_sample/data/table.csv", "nemo_sample-1.2.dist-info/METADATA",
        "nemo_sample-1.2.dist-info/WHEEL", "nemo_sample-1.2.dist-info/entry_points.txt",
    }  # fmt: skip
    assert shipped["nemo_sample/__init__.py"] == CODE["nemo_sample/__init__.py"].encode()


def test_an_installed_distribution_has_the_digest_of_its_wheel(wheel, installed, store):
    package = DistributionPackager(name="nemo_sample").package(store)
    assert package.digest == DistributionPackager(wheel=str(wheel)).package(store).digest


def test_what_is_shipped_can_be_imported_and_knows_its_version(wheel, store, tmp_path, contents):
    package = HybridPackager(sub_packagers={"lib": DistributionPackager(wheel=str(wheel))}).package(store)
    lay(tmp_path / "job", contents(package))
    code = "import nemo_sample, importlib.metadata as m; print(nemo_sample.VALUE, m.version('nemo-sample'))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "job" / "lib")}, capture_output=True, text=True
    )
    assert done.stdout == "42 1.2\n"


def test_an_editable_install_is_refused_with_what_to_package(installed, store, tmp_path):
    (installed / "nemo_sample-1.2.dist-info" / "direct_url.json").write_text(
        '{"url": "file:///src/my%20code", "dir_info": {"editable": true}}'
    )
    with pytest.raises(
        PackagingError, match=r"is an editable install of /src/my code: .*GitArchivePackager\(path='/src"
    ):
        DistributionPackager(name="nemo-sample").package(store)


@pytest.mark.parametrize(
    ("files", "about", "message"),
    [
        (
            {**CODE, "nemo_sample/fast.cpython-311-x86_64-linux-gnu.so": ""},
            "Root-Is-Purelib: true\n",
            "has compiled files",
        ),
        (CODE, "Root-Is-Purelib: false\n", "is built for one platform"),
    ],
)
def test_what_is_not_pure_python_is_refused(tmp_path, store, files, about, message):
    wheel = wheel_of(files, tmp_path, about=about)
    with pytest.raises(PackagingError, match=message):
        DistributionPackager(wheel=str(wheel)).package(store)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the name"),
        ({"name": "a", "wheel": "b"}, "needs the name"),
        ({"name": "nemo-nowhere"}, "no distribution 'nemo-nowhere' is installed"),
        ({"wheel": "/nowhere.whl"}, "cannot be read"),
        ({"name": "numpy"}, "has compiled files"),
    ],
)
def test_bad_input_is_one_clear_line(store, options, message):
    with pytest.raises(PackagingError, match=message) as caught:
        DistributionPackager(**options).package(store)
    assert "\n" not in str(caught.value)


def test_what_is_no_wheel_is_said(tmp_path, store):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("a.py", "")
    with pytest.raises(PackagingError, match=r"is not a wheel: it has no \.dist-info/WHEEL"):
        DistributionPackager(wheel=str(tmp_path / "a.whl")).package(store)
