"""Draws the rooms of the code and which may import which, from the contract that is checked: `make lint`."""

import ast
import html
import re
import tomllib
from pathlib import Path

import nemo_airflow

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT, GAP, MARGIN = 1000, 34, 10, 40
"""Of the drawing, a room, the space between rooms, and the space for the arrow, in pixels."""

PER_ROW = 6


def read_layers() -> list[list[str]]:
    """Returns the rooms of each layer, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each.get("containers") == ["nemo_airflow"]]
    return [re.split(r"\s*[|:]\s*", layer) for layer in layers]


def describe_room(name: str) -> str:
    """Returns the first sentence of a room's docstring."""
    base = Path(nemo_airflow.__file__).parent / name
    file = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n\n")[0].replace("\n", " ")


def draw_rooms(layers: list[list[str]]) -> str:
    """Returns the drawing: a row for each layer, a box for each room, and one arrow for all."""
    rows, top = [], GAP
    for layer in layers:
        for chunk in (layer[start : start + PER_ROW] for start in range(0, len(layer), PER_ROW)):
            width = (WIDTH - MARGIN - GAP * (len(chunk) + 1)) / len(chunk)
            for number, room in enumerate(chunk):
                x = MARGIN + GAP + number * (width + GAP)
                rows.append(
                    f"<g><title>{html.escape(describe_room(room))}</title>"
                    f'<rect class="room" x="{x:.0f}" y="{top}" width="{width:.0f}" height="{HEIGHT}"/>'
                    f'<text x="{x + width / 2:.0f}" y="{top + 22}">{room}</text></g>'
                )
            top += HEIGHT + 4
        top += GAP
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" font-family="system-ui, sans-serif">
<style>.room {{ fill: #f1f5f9; stroke: #475569; rx: 6; }}
text {{ font-size: 14px; text-anchor: middle; fill: #0f172a; }}
.arrow {{ stroke: #2563eb; stroke-width: 2; marker-end: url(#tip); }}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0 L8,4 L0,8 z" fill="#2563eb"/></marker></defs>
<rect width="{WIDTH}" height="{top}" fill="#ffffff"/>
<line class="arrow" x1="20" y1="{GAP}" x2="20" y2="{top - GAP}"/>
{chr(10).join(rows)}
</svg>
"""


def write_page(layers: list[list[str]]) -> str:
    """Returns the page with the drawing, and a table of what each room does."""
    title = "Rooms of the code"
    lines = [
        title,
        "=" * len(title),
        "",
        "A room may import those in the rows below it, and none above: ``lint-imports`` checks it, imports within",
        "functions included. So who follows a config on its way meets each room once.",
        "",
        ".. image:: rooms.svg",
        "   :alt: The rooms of the code in layers; an arrow from top to bottom says that imports go that way alone.",
        "",
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - room",
        "     - what it does",
    ]
    for room in (room for layer in layers for room in layer):
        lines += [f"   * - ``{room}``", f"     - {describe_room(room)}"]
    return "\n".join(lines) + "\n"
