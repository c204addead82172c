"""The executor of the tutorial passes the conformance suite, as its page has it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "your-own-executor.md"
LONGEST = 150
"""Lines of a complete executor."""

pytestmark = pytest.mark.spooler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files of the page."""
    folder = tmp_path_factory.mktemp("spooler")
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        (folder / name).write_text(text)
    return folder


def test_whole_executor_is_a_page(folder):
    assert len((folder / "spooler.py").read_text().splitlines()) <= LONGEST


def test_executor_of_the_page_passes_the_conformance_suite(folder, tmp_path_factory):
    assert shutil.which("tsp"), "install task-spooler"
    short = tmp_path_factory.mktemp("s")  # a socket's path has to be short
    env = {"TS_SOCKET": str(short / "ts"), "TMPDIR": str(short), "TS_SLOTS": "8", "PYTHONPATH": str(folder)}
    variables = [f"{name}={value}" for name, value in env.items()]
    command = ["env", *variables, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "4"]
    try:
        done = subprocess.run(
            [*command, "--rootdir", folder, "-c", "/dev/null", folder / "test_spooler.py"],
            cwd=folder, capture_output=True, text=True, timeout=500,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-20_000:]
        assert re.search(r"\b[3-9]\d passed", done.stdout), done.stdout
    finally:
        subprocess.run(["env", *variables, "tsp", "-K"], check=False, timeout=300)
