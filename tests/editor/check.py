"""Checks with mypy and pyright what a user writes: the sample, with its wrong lines, and the examples of the docs.

Run by ``make lint``. Exit code 1 and a line for each difference where a checker refuses a line that is right, or
takes one that is wrong.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SAMPLE = "sample.py"
MARK = re.compile(r"#.*?\bwrong\b(?: for (mypy|pyright|nobody))?")
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+)\.py\n")
# Strict as to configs; what is short in an example of a page is no fault. In the files, since mypy checks all that is
# imported anew where its own options are others than in the run before.
RELAXED = (
    "# mypy: allow-untyped-defs, allow-incomplete-defs, allow-any-generics, allow-subclassing-any, "
    'disable-error-code="empty-body,import-untyped"'
)
PAGES = ("docs/configs.md", "docs/composition.md", "docs/recipes.md", "docs/differences.md", "README.md")


def mypy(folder: Path) -> set[tuple[str, int, str]]:
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--output", "json"]
    for file in folder.glob("*.py"):
        file.write_text(f"{file.read_text()}\n{RELAXED}\n")
    files = sorted(map(str, folder.glob("*.py")))
    run = subprocess.run([*command, *files], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        sys.exit(run.stdout + run.stderr)
    found = map(json.loads, filter(None, run.stdout.splitlines()))
    return {(Path(each["file"]).name, each["line"], each["message"]) for each in found if each["severity"] == "error"}


def pyright(folder: Path) -> set[tuple[str, int, str]]:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(folder)]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode not in (0, 1):
        sys.exit(run.stdout + run.stderr)
    found = [each for each in json.loads(run.stdout)["generalDiagnostics"] if each["severity"] == "error"]
    # Airflow's own: to pyright, no DAG takes the dict that its documentation gives it.
    found = [each for each in found if '"ParamsDict"' not in each["message"]]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"]) for each in found}


def write_page(path: str, folder: Path) -> set[tuple[str, int]]:
    """Writes the examples of a page as modules, and returns the lines of those that show errors."""
    page = Path(path).stem.lower()
    blocks = BLOCK.findall((ROOT / path).read_text())
    if page == "readme":  # its other blocks are parts of this one, with the code that the README's test gives it
        code = re.search(r'^TRAINER = """\n(.*?)^"""', (HERE.parent / "shared_airflow.py").read_text(), re.M | re.S)
        blocks = [f"# trainer.py\n{code[1] if code else ''}", blocks[0]]
    names = [match[1] for block in blocks if (match := FILE.match(block))]
    of_page = re.compile(rf"\b(from|import) ({'|'.join(names)})\b")
    script: list[str] = []
    on_purpose: set[tuple[str, int]] = set()
    for block in blocks:
        renamed = of_page.sub(rf"\1 {page}_\2", block)
        if match := FILE.match(block):
            (folder / f"{page}_{match[1]}.py").write_text(renamed)
            continue
        lines = renamed.splitlines()
        if "pytest.raises" in block:
            on_purpose |= {(f"{page}.py", len(script) + number) for number in range(1, len(lines) + 1)}
        script += lines
    (folder / f"{page}.py").write_text("\n".join(script) + "\n")
    return on_purpose


def main() -> int:
    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / SAMPLE).write_bytes((HERE / SAMPLE).read_bytes())
        on_purpose = set().union(*(write_page(page, folder) for page in PAGES))
        (folder / "torchlike.py").write_text("class Module: ...\n")  # the library that only an image has
        marks = {
            number: match[1] or "both"
            for number, line in enumerate((HERE / SAMPLE).read_text().splitlines(), 1)
            if (match := MARK.search(line))
        }
        for checker in (mypy, pyright):
            found = checker(folder)
            wanted = {number for number, kind in marks.items() if kind in ("both", checker.__name__)}
            refused = {line for file, line, _ in found if file == SAMPLE}
            faults += [
                f"{checker.__name__}: {file}:{line}: {message}"
                for file, line, message in sorted(found)
                if (file == SAMPLE and line not in wanted) or (file != SAMPLE and (file, line) not in on_purpose)
            ]
            faults += [f"{checker.__name__}: {SAMPLE}:{line}: takes a wrong line" for line in sorted(wanted - refused)]
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
