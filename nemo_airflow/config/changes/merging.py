"""Lays one config, or a mapping of values, over another: later values win, and others stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import fiddle as fdl
from fiddle.history import Location

from nemo_airflow.config.changes.apply import FiddleView, find_neighbours, not_too_deep
from nemo_airflow.config.changes.values import Layers, Values
from nemo_airflow.config.objects.buildable import Config, Partial
from nemo_airflow.config.objects.leaves import annotation_below, copy_config, fit_value
from nemo_airflow.config.objects.origins import Origin, location_of, set_argument
from nemo_airflow.config.types import checks
from nemo_airflow.config.types.graph import is_dataclass_instance, join, recipe_overrides
from nemo_airflow.config.types.parameters import parameters_of
from nemo_airflow.exceptions import OverrideError, TargetNotImportableError
from nemo_airflow.language.names import target_name
from nemo_airflow.language.overrides.apply import MISSING, Change, find_name, match_type
from nemo_airflow.language.overrides.paths import parse_path
from nemo_airflow.language.plan.grammar import is_reserved
from nemo_airflow.language.texts import short_name

ABSENT: Any = type("_Absent", (), {"__repr__": lambda self: "no value"})()
"""Stands for the missing config below the first layer."""


def merge(root: Any, layer: Any, origin: Origin, what: str, layers: Layers) -> Any:
    """Returns a config with a layer laid over it; the config itself is changed where that is possible.

    Args:
        root: The config, or :data:`ABSENT`.
        layer: A config, or a mapping of values: by parameter, or by dotted path. A mapping in both, or a
            config of the same function in both, is merged; everything else is replaced.
        origin: Where the layer comes from.
        what: Its description in the config's history.
        layers: Lays files that values name.

    Raises:
        ConfigError: A path does not exist, or a value does not fit; the path is in the error.
    """
    with not_too_deep(""):
        return _Merge(root, origin, what, layers).replace(root, copy_config(layer), Any, "", None)


class _Merge:
    def __init__(self, root: Any, origin: Origin, what: str, layers: Layers) -> None:
        self._root = root
        self._location = location_of(what, origin)
        self._laid: dict[tuple[int, int], tuple[Any, Any]] = {}
        """The configs that have others laid over them, which may be shared; by ids, so they are kept alive."""
        self._values = Values(
            origin, None if root is ABSENT else root, self._location, layers=layers, reads_numbers=False
        )

    def replace(self, old: Any, new: Any, annotation: Any, path: str, holder: Any) -> Any:
        """Returns the replacement of a value."""
        if isinstance(new, fdl.Buildable):
            if _are_same_call(old, new):
                return self._config(old, new, path)
            return fit_value(annotation, new, path, checks.read_plain)
        if isinstance(new, Mapping):
            return self._mapping(old, new, annotation, path, holder)
        neighbours = find_neighbours(old, holder)
        reader = self._values.reader(annotation, path, neighbours)
        return match_type(reader, old, self._values.read(annotation, new, path, neighbours), annotation)

    def _config(self, old: Any, new: Any, path: str) -> Any:
        made = self._of_type(old, new, path)
        if made is new or (id(made), id(new)) in self._laid:
            return made
        self._laid[id(made), id(new)] = (made, new)
        for key, value in new.__arguments__.items():
            before = made.__arguments__.get(key, ABSENT)
            parameter = parameters_of(made.__fn_or_cls__).find(key)
            annotation = Any if parameter is None else parameter.annotation
            merged = self.replace(before, value, annotation, join(path, key), made)
            if merged is not before:
                set_argument(made, key, merged, _last_location(new, key) or self._location)
        for key, tags in new.__argument_tags__.items():
            made.__argument_tags__[key] |= tags
        self._add_overrides(made, recipe_overrides(new) or ())
        return made

    def _of_type(self, old: Any, new: Any, path: str) -> Any:
        """Returns a config converted to the kind of another; the other itself where one of them is a recipe."""
        if (recipe_overrides(old) is None) is not (recipe_overrides(new) is None):
            return new
        return old if type(old) is type(new) else _converted(old, type(new), path)

    def _add_overrides(self, recipe: Any, texts: Any) -> None:
        from nemo_airflow.config.objects.recipe import add_override

        for text in texts:
            add_override(recipe, text, self._location)

    def _mapping(self, old: Any, new: Mapping[Any, Any], annotation: Any, path: str, holder: Any) -> Any:
        target = new.get("_target_")
        if isinstance(old, fdl.Buildable) or is_dataclass_instance(old):
            is_same = target is None or (isinstance(target, str) and _same_target(old, target))
            others = {key: value for key, value in new.items() if not is_reserved(key)}
            flags = {key: value for key, value in new.items() if is_reserved(key) and key != "_target_"}
            if is_same and not flags.keys() - {"_partial_"}:
                return self._arguments(_of_kind(old, flags, path), others, annotation, path, holder)
        reserved = any(map(is_reserved, new))
        if isinstance(old, dict) and not reserved:
            return fit_value(annotation, self._dict(old, new, annotation, path, holder), path, checks.read_plain)
        return self._values.read(annotation, dict(new), path, find_neighbours(old, holder))

    def _arguments(self, old: Any, new: Mapping[Any, Any], annotation: Any, path: str, holder: Any) -> Any:
        root = old if self._root is ABSENT else self._root
        for key, value in new.items():
            keys = [*parse_path(key)] if isinstance(key, str) else [key]
            for below, item in _parts(old, keys, value):
                change = _Laid(self, below, item, path, self._values, self._location)
                old = change.apply_at(old, path, annotation, holder, root)
        return old

    def _dict(
        self, old: dict[Any, Any], new: Mapping[Any, Any], annotation: Any, path: str, holder: Any
    ) -> dict[Any, Any]:
        for key, value in new.items():
            name = find_name(list(old), key, is_sequence=False)
            name = key if name is MISSING else name
            inner = annotation_below({**old, name: None}, name, annotation)
            old[name] = self.replace(old.get(name, ABSENT), value, inner, join(path, name), holder)
        return old


class _Laid(Change):
    """A change that lays a value over the existing one."""

    def __init__(self, merge: _Merge, keys: list[Any], given: Any, path: str, values: Values, location: Any) -> None:
        whole = path
        for key in keys:
            whole = join(whole, key)
        super().__init__(FiddleView(values, location), whole, keys, "=", given)
        self._merge, self._value = merge, given

    def new(self, old: Any, annotation: Any, path: str, holder: Any) -> Any:
        """Returns the new value, completed with the existing one."""
        return self._merge.replace(old, self._value, annotation, path, holder)


def _parts(node: Any, keys: list[Any], value: Any) -> Iterator[tuple[list[Any], Any]]:
    """Yields the values to set; below a recipe, each value by itself, since only the job knows the factory's result."""
    from nemo_airflow.config.objects.recipe import takes

    is_later = recipe_overrides(node) is not None and not takes(node, keys[0])
    if not is_later or not isinstance(value, Mapping) or not value or any(map(is_reserved, value)):
        yield keys, value
        return
    for key, item in value.items():
        yield from _parts(node, [*keys, key], item)


def _are_same_call(old: Any, new: Any) -> bool:
    both = isinstance(old, fdl.Buildable) and isinstance(new, fdl.Buildable)
    return both and _same_target(old, target_name(new.__fn_or_cls__))


def _same_target(old: Any, name: str) -> bool:
    from nemo_airflow.language.names import name_from_dotted

    target = old.__fn_or_cls__ if isinstance(old, fdl.Buildable) else type(old)
    try:
        return target_name(target) == name_from_dotted(name)
    except TargetNotImportableError:
        return False


def _of_kind(old: Any, flags: Mapping[str, Any], path: str) -> Any:
    if "_partial_" not in flags:
        return old
    if not isinstance(flags["_partial_"], bool):
        raise OverrideError("_partial_ must be true or false", path)
    return _converted(old, Partial if flags["_partial_"] else Config, path)


def _converted(old: Any, kind: Any, path: str) -> Any:
    """Returns a config as a partial of the same arguments, or the other way round."""
    if type(old) is kind:
        return old
    if not {type(old), kind} <= {Config, Partial, fdl.Config, fdl.Partial, fdl.ArgFactory}:
        name = short_name(old.__fn_or_cls__) if isinstance(old, fdl.Buildable) else type(old).__name__
        raise OverrideError(f"{name} is a {type(old).__name__} here and cannot become a {kind.__name__}", path)
    return kind.__unflatten__(*old.__flatten__())


def _last_location(config: Any, key: Any) -> Location | None:
    entries = config.__argument_history__.get(key)
    return entries[-1].location if entries else None
