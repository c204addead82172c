"""``nemo-airflow init``: a new project that runs, with its test and its checks for each commit."""

from __future__ import annotations

import re
from pathlib import Path

from nemo_airflow import __version__
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.language.nearest import nearest

TEMPLATES = {
    "train": "One DAG that trains a model, with a trigger form made from its config.",
    "sweep": "One DAG that trains a model for each of several values, side by side, and tells the best.",
    "retrain": "One DAG that retrains a model each week, evaluates it, and announces it where it is good enough.",
}

COMMANDS = ('git init -q && git add . && git commit -q -m "The project"', "nemo-airflow validate dags", "pytest")
"""What to run first in a new project."""

_FOLDER = Path(__file__).parents[1] / "project_templates"
_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_MAY_BE_THERE = (".git", ".venv")
"""What a folder may have that counts as empty."""


def run(name: str | None, template: str) -> int:
    """Writes a project into a new folder of that name, or into the current one.

    Args:
        name: The project's name; that of the current folder if None.
        template: One of :data:`TEMPLATES`.

    Raises:
        SettingsError: The name or the template is none, or the folder has files.
    """
    if template not in TEMPLATES:
        raise SettingsError(f"there is no template {template!r}{nearest(template, TEMPLATES)}")
    folder = Path.cwd() if name is None else Path(name)
    title = _check_name(folder.name if name is None else name, is_folder=name is None)
    _check_empty(folder)
    words = {
        "PROJECT": title,
        "VERSION": __version__,
        "TEMPLATE": template,
        "ABOUT": TEMPLATES[template],
        "COMMANDS": "\n".join(COMMANDS),
    }
    for source in (_FOLDER / "common", _FOLDER / template):
        for path in sorted(source.rglob("*.in")):
            target = folder / path.relative_to(source).with_suffix("")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = re.sub("|".join(words), lambda match: words[match[0]], path.read_text())
            with target.open("x") as file:  # and never over what is there
                file.write(text)
    where = "here" if name is None else f"in {folder}"
    print(f"The project {title} is {where}. Next:\n")
    for command in (*([] if name is None else [f"cd {folder}"]), *COMMANDS):
        print(f"  {command}")
    return 0


def _check_name(name: str, *, is_folder: bool) -> str:
    if _NAME.fullmatch(name):
        return name
    better = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789")
    hint = f", such as {better}" if _NAME.fullmatch(better) else ", such as my-project"
    what = f"the current folder's name {name!r} is" if is_folder else f"{name!r} is"
    how = "give one: nemo-airflow init NAME" if is_folder else "choose another"
    raise SettingsError(
        f"{what} not a name of a project: {how}, of lower-case letters, digits, - and _, beginning with a letter{hint}"
    )


def _check_empty(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file: choose another name")
    there = sorted(path.name for path in folder.iterdir() if path.name not in _MAY_BE_THERE) if folder.exists() else []
    if there:
        shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise SettingsError(
            f"{folder} is not empty, and nothing is overwritten: it has {shown}; choose another name or an empty folder"
        )
