"""What the guides show is accepted as shown, by this project and by those from which one comes."""

import re
import sys
import types
from datetime import UTC, datetime
from pathlib import Path

import pytest
from airflow.sdk import DAG

from nemo_airflow import NemoRunOperator

GUIDES = Path(__file__).parents[2] / "docs/guides"
BLOCK = re.compile(r"^```python\n(?:# ([^\n]+)\n)?(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def trainer(monkeypatch, tmp_path):
    """The user's own module."""
    text = (
        "from dataclasses import dataclass\n@dataclass\nclass Model:\n    hidden: int = 8\n"
        "def train(model: Model | None = None, learning_rate: float = 0.1, data: str = '') -> dict: ...\n"
    )
    (tmp_path / "trainer.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trainer", raising=False)
    yield
    sys.modules.pop("trainer", None)


@pytest.mark.parametrize("guide", sorted(path.name for path in GUIDES.glob("*.md")))
def test_examples_of_a_guide_are_accepted(guide, trainer):
    module = types.ModuleType(guide)
    with DAG("guide", start_date=datetime(2026, 1, 1, tzinfo=UTC)) as dag:
        for whose, text in BLOCK.findall((GUIDES / guide).read_text()):
            code = compile(text, guide, "exec")
            if whose != "NeMo-Run":
                exec(code, vars(module))
    assert any(isinstance(task, NemoRunOperator) for task in dag.tasks)
