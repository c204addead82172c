"""``make test`` says which tests a machine cannot run; in CI it fails instead of leaving any out."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "dirname", "id", "realpath")


@pytest.fixture
def run():
    """Runs the script as a user who may not install anything, on a machine without a browser."""
    home = Path(tempfile.mkdtemp(prefix="nemo-machine-"))  # not pytest's folder, which only its owner may enter
    home.chmod(0o755)
    (home / "bin").mkdir()
    for tool in TOOLS:
        (home / "bin" / tool).symlink_to(shutil.which(tool))
    (home / "tests" / "lab").mkdir(parents=True)
    for script in ("run.sh", *(f"lab/{name.name}" for name in (TESTS / "lab").glob("*.sh"))):
        shutil.copy(TESTS / script, home / "tests" / script)
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}

    def run_script(**env):
        return subprocess.run(
            [home / "tests" / "run.sh", "/bin/echo"],
            env={"PATH": str(home / "bin"), **env},
            capture_output=True,
            text=True,
            check=False,
            **nobody,
        )

    yield run_script
    shutil.rmtree(home)


def test_what_a_machine_cannot_run_is_left_out_and_said_in_one_line_each(run):
    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("-m not browser and not spooler and not lab")
    browser, spooler, lab = done.stderr.splitlines()
    assert browser.startswith("leaving out the tests marked 'browser': no browser is installed: install chromium")
    assert spooler.startswith(
        "leaving out the tests marked 'spooler': no task spooler is installed: install task-spooler"
    )
    assert lab.startswith("leaving out the tests marked 'lab': the lab of real back-ends is made on Debian 12 as root")
    assert "make test-lab" in lab


def test_in_ci_a_missing_part_is_a_failure(run):
    done = run(CI="true")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("in CI all tests run, but no browser is installed")
