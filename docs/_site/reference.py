"""Writes the pages of the reference, from docstrings and from the help of the command line itself."""

import argparse
import importlib
import inspect
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import nemo_airflow
from _site import rooms
from nemo_airflow import cli
from nemo_airflow.cli.help import GROUPS

FOLDER = "reference-pages"
"""Beside the written pages; git ignores it."""

PYTHON = {
    # page: (title, modules, whose public names it has)
    "operators": ("Operators", ["nemo_airflow.operators", "nemo_airflow.decorators.nemo"]),
    "config": ("Configs", ["nemo_airflow.config"]),
    "executors": ("Executors, launchers and secrets", ["nemo_airflow.executors"]),
    "packaging": ("Packagers", ["nemo_airflow.packaging"]),
    "tracking": ("Trackers", ["nemo_airflow.tracking"]),
    "reproduction": (
        "Reproduced and resumed runs",
        ["nemo_airflow.launch.reproducing", "nemo_airflow.launch.resuming", "nemo_airflow.reproduction.report"],
    ),
    "experiment": ("Experiments", ["nemo_airflow.experiment"]),
    "runner": ("In a job", ["nemo_airflow.runner"]),
    "artifacts": ("Artifacts", ["nemo_airflow.artifacts"]),
    "promotion": ("Promotion and rollback", ["nemo_airflow.promotion"]),
    "assets": ("Assets", ["nemo_airflow.assets"]),
    "job": ("Jobs and how they end", ["nemo_airflow.job"]),
    "notifications": ("Notifications", ["nemo_airflow.notifications", "nemo_airflow.notifications.report"]),
    "hooks": ("Hooks", ["nemo_airflow.hooks.back_ends", "nemo_airflow.hooks.mlflow", "nemo_airflow.hooks.packaging"]),
    "testing": ("Tests of projects and of executors", ["nemo_airflow.testing", "nemo_airflow.testing.conformance"]),
    "exceptions": ("Exceptions", ["nemo_airflow.exceptions"]),
}
WIDTH = 80
"""Columns of the commands' help."""


def write_pages(folder: Path) -> None:
    """Writes all pages of the reference, leaves those alone that would not change, and removes others."""
    layers = rooms.read_layers()
    texts = {f"{page}.rst": _python(*PYTHON[page]) for page in PYTHON}
    texts |= {"commands.rst": _commands(), "rooms.rst": rooms.write_page(layers), "rooms.svg": rooms.draw_rooms(layers)}
    shown = {name for _, modules in PYTHON.values() for module in modules for name in _public(module)}
    if missing := set(nemo_airflow.__all__) - shown - {"__version__"}:
        raise ValueError(f"docs/_site/reference.py has no page for {', '.join(sorted(missing))}")
    folder.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()  # of an earlier build
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n\n"


def _public(module_name: str) -> list[str]:
    """Returns the public names of a module: its ``__all__``, or what is defined there."""
    module = importlib.import_module(module_name)
    if names := getattr(module, "__all__", None):
        return list(names)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module_name and callable(value)
    ]


def _python(title: str, modules: list[str]) -> str:
    text = _title(title, "=")
    for module_name in modules:
        module = importlib.import_module(module_name)
        text += f"``{module_name}``: {(module.__doc__ or '').splitlines()[0]}\n\n"
        for name in _public(module_name):
            value = getattr(module, name)
            directive = "autoexception" if inspect.isclass(value) and issubclass(value, Exception) else "autoclass"
            if not inspect.isclass(value):
                directive = "autofunction" if callable(value) else "autodata"
            text += f".. {directive}:: {module_name}.{name}\n\n"
    return text


def _commands() -> str:
    """Returns the page of the command line: what each command's ``--help`` prints."""
    parser = cli._parser()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        helps = {words: each.format_help() for words, each in _parsers(parser, ())}
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    text = _title("Commands", "=") + _literal(helps.pop(()))
    for group, names in GROUPS.items():
        text += _title(group, "-")
        for words, help_text in helps.items():
            if words[0] in names:
                text += _title(" ".join(("nemo-airflow", *words)), "~") + _literal(help_text)
    return text


def _parsers(
    parser: argparse.ArgumentParser, words: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                yield from _parsers(each, (*words, name))


def _literal(text: str) -> str:
    return f".. code-block:: text\n\n{textwrap.indent(text.rstrip(), '   ')}\n\n"
