"""The Python examples of the pages that say so run as they stand, in their order."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
MARK = "<!-- The examples of this page are run by the tests, in their order. -->"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if MARK in path.read_text())


@pytest.mark.parametrize("page", PAGES)
def test_examples_run_in_their_order(page, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    names = {}
    before = set(sys.modules)
    try:
        for block in blocks:
            if match := re.match(r"# ([\w/]+)\.py\n", block):  # a file, as its first line says
                file = tmp_path / f"{match[1]}.py"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block)
            else:
                exec(compile(block, page, "exec"), names)
    finally:
        for module in set(sys.modules) - before:
            if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[module]


@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("configs.md", 11),
        ("composition.md", 5),
        ("recipes.md", 3),
        ("differences.md", 7),
        ("store.md", 1),
        ("packaging.md", 7),
        ("drivers.md", 1),
        ("secrets.md", 3),
        ("artifacts.md", 3),
        ("reuse.md", 2),
        ("from-nemo-run.md", 8),
        ("checkpoints.md", 3),
    ],
)
def test_the_pages_with_examples_are_among_them(page, least):
    assert page in PAGES
    assert (DOCS / page).read_text().count("```python\n") >= least
