"""Writes a config or a plan as Python code that makes it again. Nothing is imported."""

from __future__ import annotations

import base64
import builtins
import keyword
import re
from typing import Any

from nemo_airflow.config.views import outline
from nemo_airflow.config.views.outline import Node
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.language.plan import grammar

_WIDTH = 88
_LEVELS = 6
"""Most levels of nested calls; deeper values become variables."""

_CALLS = {"call": "Config", "partial": "Partial", "recipe": "Recipe"}


def to_python(config_or_plan: Any, name: str = "config", *, by_name: bool = False) -> str:
    """Returns the source of a module that makes the config.

    A shared value becomes a variable, and so one object again. The code nests
    ``_LEVELS`` calls at most; what is deeper becomes variables too.

    Args:
        config_or_plan: A config, written with its set values only, unless ``by_name``; or a plan, with its defaults.
        name: The variable that has the config.
        by_name: Write targets as texts, ``Config("pkg.mod:name")``, so that the code needs none of
            their libraries, and reads them from their source.

    Raises:
        ConfigError: The config cannot be written as a plan, or the name is no variable's.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ConfigError(f"name={name!r} is not a valid name of a variable")
    is_config = not (by_name or outline.is_plan(config_or_plan))
    root = outline.of_config(config_or_plan) if is_config else outline.of(config_or_plan)
    return _Writer(root, name, by_name=by_name).write()


class _Writer:
    def __init__(self, root: Node, name: str, *, by_name: bool) -> None:
        self._root = root
        self._name = name
        self._by_name = by_name
        self._taken = {name, *dir(builtins), *keyword.kwlist}
        self._imports: dict[tuple[str, str], str] = {}
        """The name in the code of each imported one, by module and name; of a module itself, with an empty name."""
        self._texts: dict[int, str] = {}
        self._levels: dict[int, int] = {}
        self._lines: list[str] = []

    def write(self) -> str:
        for node in outline.children_first(self._root):
            text = self._text(node)
            level = 1 + max((self._levels[id(child)] for _, child in node.edges), default=0)
            if node is self._root:
                self._lines.append(f"{self._name} = {text}\n")
            elif node.form != "leaf" and (node.is_shared or level > _LEVELS):
                variable = self._variable(node)
                self._lines.append(f"{variable} = {text}\n")
                text, level = variable, 0
            self._texts[id(node)] = text
            self._levels[id(node)] = level if node.edges else 0
        return self._import_lines() + "\n" + "".join(self._lines)

    def _text(self, node: Node) -> str:
        if node.form == "leaf":
            return self._value(node.value)
        below = [(key, self._texts[id(child)]) for key, child in node.edges]
        if node.form in outline.CONTAINERS:
            items = [f"{self._value(key)}: {text}" if node.form == "dict" else text for key, text in below]
            return _joined(outline.format_opening(node), items, outline.format_closing(node))
        positions = self._positions(node)
        given = below[positions:]
        items = [text for _, text in below[:positions]]
        if any(keyword.iskeyword(key) for key, _ in given):
            # A parameter of **kwargs may have any name.
            items.append(_joined("**{", [f"{key!r}: {text}" for key, text in given], "}"))
        else:
            items += [f"{key}={text}" for key, text in given]
        if node.form == "instance":
            return _joined(f"{self._imported(node.target)}(", items, ")")
        return _joined(f"{self._kind(node)}(", [self._target(node), *items], ")")

    def _positions(self, node: Node) -> int:
        """Returns how many arguments have to be positional: all up to the last one without a name."""
        keys = [key for key, _ in node.edges]
        last = max((index for index, key in enumerate(keys) if isinstance(key, int)), default=-1)
        if last >= 0 and keys[last] != last:
            message = "an argument before a positional one is not set: set it too, since code cannot leave it out"
            raise ConfigError(message, node.path)
        return last + 1

    def _kind(self, node: Node) -> str:
        if node.form == "arg_factory":
            return f"{self._module('fiddle')}.ArgFactory"
        return self._import("nemo_airflow", _CALLS.get(node.form, "Config"))

    def _target(self, node: Node) -> str:
        # A recipe's factory is read from its source in any case; Fiddle's ArgFactory takes no names.
        is_named = node.form == "recipe" or (self._by_name and node.form != "arg_factory")
        return repr(node.target) if is_named else self._imported(node.target)

    def _value(self, value: Any) -> str:
        """Returns a leaf, or the key of a dict, as the plan writes it, in Python."""
        if isinstance(value, list):
            return f"[{', '.join(map(self._value, value))}]"
        if not isinstance(value, dict):
            return repr(value)
        if not value:
            return "{}"
        ((tag, inner),) = value.items()
        if tag in ("_enum_", "_ref_"):
            return self._imported(inner)
        if tag == "_float_":
            return f"float({inner!r})"
        if tag == "_bytes_":
            return repr(base64.b64decode(inner))
        if tag == "_path_":
            return f"{self._import('pathlib', 'Path')}({inner!r})"
        if tag == "_decimal_":
            return f"{self._import('decimal', 'Decimal')}({inner!r})"
        if tag in grammar.SCALARS:
            text = repr(grammar.SCALARS[tag](inner))
            module = self._module("datetime")
            return text.replace("datetime.", f"{module}.") if module != "datetime" else text
        items = ", ".join(map(self._value, inner))
        closings = {"_tuple_": ("(", ",)" if len(inner) == 1 else ")"), "_frozenset_": ("frozenset([", "])")}
        opening, closing = closings.get(tag, ("set([", "])"))
        return f"{opening}{items}{closing}"

    def _imported(self, target: str) -> str:
        module, _, qualname = target.partition(":")
        first, dot, rest = qualname.partition(".")
        if module == "builtins":
            return qualname
        return f"{self._import(module, first)}{dot}{rest}"

    def _import(self, module: str, name: str) -> str:
        key = (module, name)
        if key not in self._imports:
            self._imports[key] = self._free(name, f"{module.rpartition('.')[2]}_{name}")
        return self._imports[key]

    def _module(self, module: str) -> str:
        key = (module, "")
        if key not in self._imports:
            self._imports[key] = self._free(module, f"{module}_module")
        return self._imports[key]

    def _variable(self, node: Node) -> str:
        words = re.findall(r"[^\W\d]\w*", node.path)
        return self._free(words[-1] if words else "part", "")

    def _free(self, name: str, other: str) -> str:
        """Returns the first of some names that the code does not use yet."""
        wanted = other if name in self._taken and other else name
        number, free = 2, wanted
        while free in self._taken:
            free, number = f"{wanted}_{number}", number + 1
        self._taken.add(free)
        return free

    def _import_lines(self) -> str:
        names: dict[str, list[str]] = {}
        for (module, name), used in self._imports.items():
            renamed = "" if used == (name or module) else f" as {used}"
            names.setdefault(module if name else "", []).append(f"{name or module}{renamed}")
        lines = [f"import {name}\n" for name in sorted(names.pop("", []))]
        lines += [f"from {module} import {', '.join(sorted(names[module]))}\n" for module in sorted(names)]
        return "".join(lines)


def _joined(opening: str, items: list[str], closing: str) -> str:
    line = f"{opening}{', '.join(items)}{closing}"
    if (len(line) <= _WIDTH and "\n" not in line) or not items:
        return line
    inner = "".join(f"    {item},\n".replace("\n", "\n    ")[:-4] for item in items)
    return f"{opening}\n{inner}{closing.lstrip(',')}"
