"""Changes configs by override texts in the job, where the annotations are known."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Dict, Optional, Tuple

from nemo_airflow.language import configs, results
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.language.errors import ConfigError, OverrideError, ParameterTypeError, UnknownParameterError
from nemo_airflow.language.names import is_allowed, name_from_dotted, names_in, resolve
from nemo_airflow.language.overrides.advice import classes_in, unknown_factory
from nemo_airflow.language.overrides.apply import REMOVED, Change, ChangeView, Key, path_below
from nemo_airflow.language.overrides.arguments import annotation_of, bind
from nemo_airflow.language.overrides.coded import is_code, no_files, plain, read_call
from nemo_airflow.language.overrides.constraints import find_violation
from nemo_airflow.language.overrides.fits import MisfitError
from nemo_airflow.language.overrides.nodes import Call, File
from nemo_airflow.language.overrides.syntax import parse_override
from nemo_airflow.language.overrides.values import Reader
from nemo_airflow.language.plan.build import Builder
from nemo_airflow.language.plan.grammar import VERSION, join, join_paths
from nemo_airflow.language.recipes import foreign, tree


def apply(root: Any, text: str, allow: Iterable[str]) -> Any:
    """Returns a config with one override applied; the config itself is changed where that is possible.

    Args:
        root: The config.
        text: The override, in the grammar of :mod:`nemo_airflow.language.overrides.syntax`.
        allow: The allow-list for factories that the override names.

    Raises:
        OverrideError: The override cannot be read, or its path does not exist.
        ParameterTypeError: Its value does not fit.
        TargetNotAllowedError: A factory in it is not permitted; nothing was imported.
    """
    override = parse_override(text)
    given = REMOVED if override.node is None else override.node
    view = _View(tuple(allow))
    return Change(view, override.place, override.path, override.operator, given, override).apply(root)


class _View(tree.JobConfigs, ChangeView):
    def __init__(self, allow: Tuple[str, ...]) -> None:
        self._allow = allow

    def find_key(self, config: Any, key: Key) -> Any:
        return key if isinstance(key, str) and configs.takes(self.target(config), key) else None

    def names(self, config: Any) -> Iterable[str]:
        return configs.names_of(self.target(config))

    def annotation(self, config: Any, key: Key) -> Any:
        return annotation_of(self.target(config), key)

    def copy_default(self, default: Any) -> Any:
        return copy.deepcopy(default)

    def set(self, config: Any, key: Key, value: Any) -> None:
        config.__arguments__[key] = value

    def remove(self, config: Any, key: Key) -> None:
        del config.__arguments__[key]

    def open_instance(self, value: Any, root: Any) -> Any:
        if not dataclasses.is_dataclass(value) or isinstance(value, (type, configs.Config, Artifact)):
            return value
        own = [field.name for field in dataclasses.fields(value) if field.init]
        fields: Dict[Any, Any] = {name: getattr(value, name) for name in own}
        opened = configs.unchecked("config", type(value), fields)
        for holder in tree.all_below(root):
            for key, child in self.children(holder) or ():
                if child is value and isinstance(holder, (configs.Config, list, dict)):
                    places = holder.__arguments__ if isinstance(holder, configs.Config) else holder
                    places[key] = opened
        return opened

    def reader(self, annotation: Any, path: str, old: Any, holder: Any) -> Reader:
        homes = [*classes_in(annotation)]
        homes += [old.__fn_or_cls__ if isinstance(old, configs.Config) else type(old)] if _has_target(old) else []
        homes += [] if holder is None else [holder.__fn_or_cls__]

        def make(given: Any, annotation: Any, keys: Sequence[Any]) -> Any:
            where = path
            for key in keys:
                where = join(where, key)
            if isinstance(given, File):
                raise OverrideError(no_files(given.path, "the job"), where)
            if isinstance(given, Call):
                return self._call(given, "config", where, homes)
            coded = read_call(given, where)
            return self._tag(given, where) if coded is None else self._call(coded.call, coded.kind, where)

        return Reader(_stands_in, make, is_code, result_fits=_result_fits)

    def check(self, annotation: Any, value: Any, path: str) -> None:
        misfit = find_violation(annotation, value, _stands_in)
        if misfit is not None:
            raise ParameterTypeError(misfit.message, path_below(path, misfit.keys))

    def _tag(self, given: Any, path: str) -> Any:
        try:
            return Builder(self._allow).build({"version": VERSION, "root": plain(given)})
        except ConfigError as error:
            raise type(error)(error.message, join_paths(path, error.path)) from error

    def _call(self, call: Call, kind: str, path: str, homes: Optional[Sequence[Any]] = None) -> Any:
        try:
            target = resolve(self._full_name(call.name, path, homes), self._allow)
        except ConfigError as error:
            raise type(error)(error.message, path) from error
        takes = getattr(target, "__record__", None) or target  # a config class has its fields as parameters
        arguments = bind(takes, call.args, dict(call.kwargs), path)
        for key, given in arguments.items():
            annotation = annotation_of(takes, key)
            below = join(path, key)
            try:
                arguments[key] = self.reader(annotation, below, None, None).read(annotation, given)
            except MisfitError as error:
                raise ParameterTypeError(error.misfit.message, path_below(below, error.misfit.keys)) from None
            self.check(annotation, arguments[key], below)
        try:
            return foreign.config_of_call(target, arguments, kind)
        except TypeError as error:
            raise UnknownParameterError(str(error), path) from None

    def _full_name(self, name: str, path: str, homes: Optional[Sequence[Any]]) -> str:
        if homes is None or ":" in name or "." in name:
            return name_from_dotted(name)
        modules = dict.fromkeys(str(getattr(home, "__module__", "builtins")) for home in homes)
        beside = [f"{module}:{name}" for module in modules if name in names_in(module)]
        if not beside:
            raise OverrideError(unknown_factory(name, (), modules, names_in, self._allow), path)
        return next((full for full in beside if is_allowed(full, self._allow)), beside[0])


def _has_target(value: Any) -> bool:
    return isinstance(value, configs.Config) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _result_fits(made: Any, annotation: Any) -> bool:
    return not isinstance(made, configs.Config) or results.result_fits(
        made, annotation, is_partial=made.__kind__ == "partial"
    )


def _stands_in(value: Any) -> bool:
    return isinstance(value, (configs.Config, Artifact))
