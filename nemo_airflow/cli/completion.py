"""What a shell may complete besides commands and options: keys of jobs, executors, and paths and values of a config.

Called at each TAB: nothing here imports Airflow. What cannot be told is not completed, and nothing is printed.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError

_CONFIGS = ("Config", "Partial", "Script", "Recipe", "compose", "change")
"""Names of what makes a config."""


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks for completions, and ends the process then; does nothing else."""
    import argcomplete

    for action in _actions(parser):
        if (completer := _COMPLETERS.get(action.dest)) is not None:
            action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from _actions(each)


def keys(prefix: str, **asked: Any) -> list[str]:
    """Returns the keys and names of the jobs that were launched from this machine."""
    found = {"last"}
    for path in (settings.home() / "launched").glob("*.json"):
        found.add(path.stem)
        try:
            found.add(str(json.loads(path.read_text())["name"]))
        except (OSError, ValueError, KeyError):  # another process writes or deletes it
            continue
    return sorted(found)


def experiments(prefix: str, **asked: Any) -> list[str]:
    """Returns the ids and titles of the experiments that were run on this machine."""
    ids = [path.stem for path in (settings.home() / "experiments").glob("*.json")]
    return sorted({*ids, *(each.rpartition("_")[0] for each in ids)})


def executors(prefix: str, **asked: Any) -> list[str]:
    """Returns the names of registered executors, their kinds, and files of YAML."""
    from nemo_airflow.registered import EXECUTORS

    names = {entry.name for group in (EXECUTORS, "nemo_airflow.executors") for entry in entry_points(group=group)}
    return sorted([*names, *_files(prefix, (".yaml", ".yml"))])


def configs(prefix: str, **asked: Any) -> list[str]:
    """Returns recipes and files, and behind a module's name the configs that it has."""
    from nemo_airflow.registered import RECIPES

    found = [entry.name for entry in entry_points(group=RECIPES)]
    found += _files(prefix, (".yaml", ".yml", ".json", ".toml"))
    module, colon, _ = prefix.partition(":")
    if colon:
        return [*found, *_quietly(lambda: [f"{module}:{name}" for name in _configs_in(module)])]
    return [*found, *(f"{Path(path).stem}:" for path in _files("", (".py",)))]


def overrides(prefix: str, parsed_args: argparse.Namespace, **asked: Any) -> list[str]:
    """Returns the paths of the config's values; behind ``=`` the values that one may have, or has."""

    def find() -> list[str]:
        from nemo_airflow.cli.plan import compose_config
        from nemo_airflow.config.views.form import form_fields

        fields = form_fields(compose_config(parsed_args.config, [], parsed_args.layers, parsed_args.allow))
        path, equals, _ = prefix.partition("=")
        if not equals:
            return [f"{each}=" for each in fields]
        if path not in fields:
            return []
        field = fields[path]
        kinds = field.schema.get("type", ())
        is_boolean = "boolean" in ([kinds] if isinstance(kinds, str) else kinds)
        values = field.schema.get("enum") or ([True, False] if is_boolean else [field.default])
        return [f"{path}={value}" for value in values]

    return _quietly(find)


def _configs_in(module: str) -> Iterator[str]:
    """Yields what may be a config in a module of the current folder, as its source has it: nothing is imported."""
    base = Path(*module.split("."))
    source = next(path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file())
    for each in ast.parse(source.read_bytes()).body:
        if isinstance(each, ast.FunctionDef) and not each.name.startswith("_"):
            if len(each.args.defaults) == len(each.args.args) + len(each.args.posonlyargs):
                yield each.name
        elif isinstance(each, (ast.Assign, ast.AnnAssign)) and isinstance(each.value, ast.Call):
            made = ast.unparse(each.value.func).rpartition(".")[2]
            targets = each.targets if isinstance(each, ast.Assign) else [each.target]
            if made in _CONFIGS:
                yield from (target.id for target in targets if isinstance(target, ast.Name))


def _files(prefix: str, endings: tuple[str, ...]) -> list[str]:
    folder = Path(prefix).parent if prefix else Path()
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return []
    folders = [f"{path}/" for path in found if path.is_dir() and not path.name.startswith(".")] if prefix else []
    return [*folders, *(str(path) for path in found if path.suffix in endings)]


def paths(prefix: str, **asked: Any) -> list[str]:
    """Returns what can be examined: files of Python and of values, folders, and configs."""
    return [*configs(prefix), *_files(prefix, (".py",))]


def templates(prefix: str, **asked: Any) -> list[str]:
    """Returns the templates of a new project."""
    from nemo_airflow.cli.init import TEMPLATES

    return list(TEMPLATES)


def _quietly(find: Callable[[], list[str]]) -> list[str]:
    """Returns what is found; nothing where the config, which may be half written, cannot be read."""
    try:
        return find()
    except (NemoAirflowError, ImportError, AttributeError, OSError, StopIteration, SyntaxError, TypeError, ValueError):
        return []


_COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "key": keys,
    "against": keys,
    "experiment_id": experiments,
    "executor": executors,
    "on": executors,
    "targets": executors,
    "config": configs,
    "paths": paths,
    "template": templates,
    "overrides": overrides,
}
"""By the destination of an option, which is the same in every command."""
