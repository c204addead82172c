"""The order of the pages, which is that of the first page's tables, and the same as text for language models."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sphinx.application import Sphinx

from _site import reference

_ROW = re.compile(r"^\| \[(?P<title>[^]]+)\]\((?P<path>[\w./-]+)\.md\) \| (?P<about>.*?) \|$", re.MULTILINE)
_LINK = re.compile(r"\[([^]]+)\]\([^)]+\)")


@dataclass(frozen=True)
class Entry:
    """A page, as a row of a table of the first page names it."""

    title: str
    name: str
    about: str


def read_sections(text: str) -> dict[str, list[Entry]]:
    """Returns the pages that the first page lists under each of its headings, in their order."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    found = {}
    for heading, part in zip(parts[::2], parts[1::2], strict=True):
        entries = [Entry(row["title"], row["path"], _LINK.sub(r"\1", row["about"])) for row in _ROW.finditer(part)]
        if entries:
            found[heading] = entries
    return found


def add_contents(_app: Sphinx, name: str, source: list[str]) -> None:
    """Adds the site's table of contents to the first page and to that of the reference; on GitHub the tables do."""
    if name == "reference":
        names = "\n".join(f"{reference.FOLDER}/{page}" for page in ("commands", *reference.PYTHON, "rooms"))
        source[0] += f"\n```{{toctree}}\n:maxdepth: 1\n\n{names}\n```\n"
    if name != "index":
        return
    for heading, entries in read_sections(source[0]).items():
        names = "\n".join(f"{entry.title} <{entry.name}>" for entry in entries)
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{names}\n```\n"


def write_llms_texts(app: Sphinx, error: Exception | None) -> None:
    """Writes llms.txt, a list of the pages as llmstxt.org has it, llms-full.txt, all of them, and each as Markdown."""
    if error is not None or app.builder.name != "html":
        return
    source, folder = Path(app.srcdir), Path(app.outdir)
    first = (source / "index.md").read_text()
    summary = next(text for text in first.split("\n\n") if not text.startswith("#"))
    lines = [f"# {app.config.project}", "", f"> {' '.join(summary.split())}"]
    listed = []
    for heading, entries in read_sections(first).items():
        lines += ["", f"## {heading}", ""]
        for entry in entries:
            lines.append(f"- [{entry.title}]({entry.name}.md): {entry.about}")
            listed.append(entry.name)
    (folder / "llms.txt").write_text("\n".join(lines) + "\n")
    texts = []
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / f"{name}.md", folder / f"{name}.md")
        texts.append((source / f"{name}.md").read_text())
    (folder / "llms-full.txt").write_text("\n\n".join(texts))
