"""Every link of the README and of the pages leads somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)>\s]*)>?(?:\s+\"[^\"]*\")?\s*\)")
EXTERNAL = re.compile(r"(https://[a-z0-9.-]+\.[a-z]{2,}(/\S*)?|mailto:\S+@\S+)")


def prose(page):
    return FENCE.sub("", page.read_text())


def links(page):
    return LINK.findall(CODE.sub("", prose(page)))


def anchors(page):
    """Returns the anchors that GitHub gives to the headings of a page."""
    found = []
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.append(anchor if anchor not in found else f"{anchor}-{found.count(anchor)}")
    return found


def problem(page, target):
    """Returns what is wrong with a link of a page, or None."""
    if re.match(r"[a-z]+:", target):
        return None if EXTERNAL.fullmatch(target) else "not an https address"
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.is_relative_to(ROOT) or not file.exists():
        return "no such file"
    if anchor and anchor not in anchors(file):
        return f"no heading #{anchor} in {file.name}, which has {', '.join(anchors(file))}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere(page):
    assert {target: why for target in links(page) if (why := problem(page, target))} == {}


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = ROOT / "docs" / "index.md"
    assert problem(page, "operator.md#templates") is None
    assert problem(page, "nothing.md") == "no such file"
    assert problem(page, "operator.md#nothing").startswith("no heading #nothing in operator.md")
    assert problem(page, "http://example.com") == "not an https address"
    text = tmp_path / "page.md"
    text.write_text("# A `b` c!\n[x](one.md) ![y](two.png) `[z](three.md)`\n```\n[w](four.md)\n```\n## A b c\n")
    assert links(text) == ["one.md", "two.png"]
    assert anchors(text) == ["a-b-c", "a-b-c-1"]


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        found = {(page.parent / target.partition("#")[0]).resolve() for target in links(page) if ":" not in target}
        ahead += [file for file in found if file.suffix == ".md" and file not in reached]
    assert set(PAGES) - reached == set()
