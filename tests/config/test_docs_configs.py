"""The examples of docs/configs.md run as they stand."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "configs.md"


def test_examples_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 8
    names = {}
    modules = []
    for block in blocks:
        if match := re.match(r"# (\w+)\.py\n", block):
            (tmp_path / f"{match[1]}.py").write_text(block)
            modules.append(match[1])
        else:
            exec(compile(block, str(DOCS), "exec"), names)
    for module in modules:
        del sys.modules[module]
