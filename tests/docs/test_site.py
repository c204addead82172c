"""The site of the documentation is built without a warning, and has all that the code and the command line have."""

import html
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

import nemo_airflow
from nemo_airflow.cli.help import GROUPS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-E", "-W", "--keep-going", "-d", folder / "doctrees"]
    done = subprocess.run([*command, ROOT / "docs", folder / "html"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def text_of(page):
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_every_public_name_is_in_the_reference(site):
    found = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="")
    shown = {name.rpartition(".")[2] for kind in found.data if kind.startswith("py:") for name in found.data[kind]}
    assert set(nemo_airflow.__all__) - shown == {"__version__"}


def test_every_command_has_its_own_help_in_the_reference(site):
    text = text_of(site / "reference-pages/commands.html")
    assert [name for names in GROUPS.values() for name in names if f"usage: nemo-airflow {name} " not in text] == []
    assert "usage: nemo-airflow store ls " in text


def test_the_drawing_of_the_rooms_has_those_of_the_contract(site):
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = re.findall(r"\w+", " ".join(contracts[0]["layers"]))
    assert re.findall(r">(\w+)</text>", (site / "_images/rooms.svg").read_text()) == rooms


def test_every_page_is_in_the_table_of_contents_and_in_the_list_for_language_models(site):
    listed = re.findall(r"^- \[[^]]+\]\((\S+)\): \S", (site / "llms.txt").read_text(), re.MULTILINE)
    assert {(ROOT / "docs" / name).read_text() for name in listed} == {(site / name).read_text() for name in listed}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {*listed} == {"index.md"}
    contents = (site / "index.html").read_text()
    assert [name for name in listed if f'href="{name.removesuffix("md")}html"' not in contents] == []
