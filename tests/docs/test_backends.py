"""The pages of the back-ends say all that their executors take; run as a program, this writes their tables."""

import dataclasses
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from nemo_airflow import executors
from nemo_airflow.executors import Executor

PAGES = Path(__file__).parents[2] / "docs/backends"
KINDS = {
    "local": "LocalExecutor", "docker": "DockerExecutor", "ssh": "SSHExecutor", "slurm": "SlurmExecutor",
    "gridengine": "GridEngineExecutor", "pbs": "PBSExecutor",
    "kubernetes": "KubernetesExecutor", "ray": "RayExecutor", "skypilot": "SkypilotExecutor",
}  # fmt: skip
TABLE = re.compile(r"<!-- parameters -->\n.*?<!-- end -->", re.DOTALL)


def meanings(cls):
    """Returns what a class's docstring says of each of its fields."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    found = {}
    for entry in re.split(r"\n(?=\w)", textwrap.dedent(text)):
        names, _, meaning = entry.partition(": ")
        for name in re.split(r",\s+", names):
            found[name] = " ".join(meaning.split()).replace("``", "`")
    return found


def default(field):
    """Returns a field's default as it is written; nothing of one that says no more than the meaning does."""
    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "required"
    value = field.default_factory() if field.default is dataclasses.MISSING else field.default
    text = repr(value)
    return f"`{text}`" if value not in (None, (), {}) and len(text) < 30 else ""


def table(cls):
    said = {name: meaning for base in reversed(cls.__mro__) for name, meaning in meanings(base).items()}
    own = {field.name for field in dataclasses.fields(Executor)}
    fields = sorted(dataclasses.fields(cls), key=lambda field: field.name in own)
    rows = [f"| `{field.name}` | {said[field.name]} | {default(field)} |" for field in fields]
    head = ("| parameter | what it is | default |", "|---|---|---|")
    return "\n".join(("<!-- parameters -->", *head, *rows, "<!-- end -->"))


@pytest.mark.parametrize("kind", KINDS)
def test_page_lists_all_parameters(kind):
    page = (PAGES / f"{kind}.md").read_text()
    assert TABLE.search(page).group() == table(getattr(executors, KINDS[kind])), f"run: python {__file__}"


@pytest.mark.parametrize("kind", KINDS)
def test_page_has_an_example_that_can_be_built(kind):
    page = (PAGES / f"{kind}.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert examples
    for example in examples:
        names = {name: getattr(executors, name) for name in executors.__all__}
        exec(compile(example, f"{kind}.md", "exec"), names)


if __name__ == "__main__":
    for kind, name in KINDS.items():
        path = PAGES / f"{kind}.md"
        before, _, after = re.split("(" + TABLE.pattern + ")", path.read_text(), flags=re.DOTALL)
        path.write_text(before + table(getattr(executors, name)) + after)
