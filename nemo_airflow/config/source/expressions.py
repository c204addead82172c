"""Reads annotations and defaults in a source as types and values, calling nothing that could do harm.

An unknown annotation is ``Any`` and an unknown value ``SET_BY_THE_CODE``: only running the code would tell them.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import griffe

from nemo_airflow.config.source.modules import Source
from nemo_airflow.config.types.parameters import SET_BY_THE_CODE

_MOST_ALIASES = 20
"""Longest chain of type aliases and constants that is followed."""

_TYPES = frozenset(
    (
        "annotated_types", "collections", "collections.abc", "datetime", "decimal", "enum", "fractions", "ipaddress",
        "numbers", "pathlib", "re", "types", "typing", "typing_extensions", "uuid",
    )
)  # fmt: skip
"""Modules whose types an annotation may use; importing them has no effect, and they are always installed."""

_CONSTRAINTS = ("annotated_types", "pydantic")
"""Modules whose objects may be called in an annotation: ``Annotated[int, Gt(0)]``, ``Field(ge=1)``."""

_CALLS = frozenset(
    ("pathlib.Path", "pathlib.PurePath", "pathlib.PurePosixPath", "decimal.Decimal", "fractions.Fraction",
     "datetime.date", "datetime.datetime", "datetime.time", "datetime.timedelta",
     "builtins.frozenset", "builtins.set", "builtins.list", "builtins.dict", "builtins.tuple", "builtins.float",
     "builtins.int", "builtins.str", "builtins.bool")
)  # fmt: skip
"""Callables that may be called for a default with known values: they make a value without side effects."""

_OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}

_LARGEST = 1e30
_LONGEST = 10_000


class Reader:
    """Reads expressions of one module.

    Args:
        source: Where modules are found.
        module: The module that the expressions are in.
        target: Makes the target of a class that is defined in the source; called with module, name and definition.
        depth: How many aliases led here.
    """

    def __init__(
        self,
        source: Source,
        module: griffe.Module,
        target: Callable[[str, str, griffe.Object], Any],
        depth: int = 0,
    ) -> None:
        self._source = source
        self._module = module
        self._target = target
        self._depth = depth

    def annotation(self, expression: griffe.Expr | str | None) -> Any:
        """Returns the type of an annotation, ``Any`` where it is not known."""
        node = _parsed(expression)
        if node is None:
            return Any
        try:
            found = self._type(node)
        except (TypeError, ValueError, AttributeError, IndexError, RecursionError):
            return Any  # Python could not make this type either, or the source does not show its parameters
        return Any if found is SET_BY_THE_CODE else found

    def value(self, expression: griffe.Expr | str | None) -> Any:
        """Returns the value of an expression, ``SET_BY_THE_CODE`` where it is only known by running it."""
        node = _parsed(expression)
        if node is None:
            return SET_BY_THE_CODE
        try:
            return self._value(node)
        except (ArithmeticError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
            return SET_BY_THE_CODE

    def name(self, dotted: str) -> Any:
        """Returns the object of a dotted name: a type of the standard library, a target, or ``SET_BY_THE_CODE``."""
        first, _, rest = dotted.partition(".")
        member = self._module.members.get(first)
        if isinstance(member, griffe.Alias):
            path = f"{member.target_path}.{rest}" if rest else member.target_path
            if (known := _standard(path)) is not SET_BY_THE_CODE:
                return known
        elif member is None and not rest and hasattr(builtins, first):
            return getattr(builtins, first)
        followed = self._source.follow(self._module, dotted)
        return self._defined(*followed) if followed is not None else SET_BY_THE_CODE

    def _defined(self, found: griffe.Object, module: str, qualname: str) -> Any:
        if isinstance(found, (griffe.Class, griffe.Function)):
            return self._target(module, qualname, found)
        home = self._source.module(module)
        if not isinstance(found, griffe.Attribute) or home is None or self._depth > _MOST_ALIASES:
            return SET_BY_THE_CODE
        inner = Reader(self._source, home, self._target, self._depth + 1)
        if isinstance(found.parent, griffe.Class):
            owner = self._target(module, qualname.rpartition(".")[0], found.parent)
            members = getattr(owner, "__members__", {})
            return members.get(found.name, SET_BY_THE_CODE)
        value = inner.value(found.value)
        return value if value is not SET_BY_THE_CODE else inner._alias(found.value)

    def _alias(self, expression: griffe.Expr | str | None) -> Any:
        node = _parsed(expression)
        return (
            self._type(node)
            if isinstance(node, (ast.Subscript, ast.BinOp, ast.Name, ast.Attribute))
            else SET_BY_THE_CODE
        )

    def _type(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):  # a reference to a definition later in the file
                inner = _parsed(node.value)
                return self._type(inner) if inner is not None else Any
            return node.value if node.value in (None, ...) else SET_BY_THE_CODE
        if isinstance(node, (ast.Name, ast.Attribute)):
            dotted = _dotted(node)
            found = self.name(dotted) if dotted else SET_BY_THE_CODE
            return Any if found is SET_BY_THE_CODE or isinstance(found, types.ModuleType) else found
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            return typing.Union[self._type(node.left), self._type(node.right)]  # noqa: UP007 - of values, not of texts
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.List):  # the parameters of a Callable
            return [self._type(item) for item in node.elts]
        return SET_BY_THE_CODE

    def _subscript(self, node: ast.Subscript) -> Any:
        origin = self._type(node.value)
        items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if origin is typing.Literal:
            values = [self._value(item) for item in items]
            return typing.Literal[tuple(values)] if SET_BY_THE_CODE not in values else Any
        if origin is typing.Annotated:
            known = [metadata for item in items[1:] if (metadata := self._constraint(item)) is not SET_BY_THE_CODE]
            inner = self._type(items[0])
            return typing.Annotated[(inner, *known)] if known else inner
        if origin is Any or (not hasattr(origin, "__getitem__") and not hasattr(origin, "__class_getitem__")):
            return origin  # a generic class of the source, whose parameters are not checked
        arguments = tuple(self._type(item) for item in items)
        if SET_BY_THE_CODE in arguments:
            return origin
        if origin is type or getattr(origin, "__nemo_source__", None):
            return origin
        return origin[arguments if len(arguments) > 1 else arguments[0]]

    def _constraint(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Call) and (dotted := _dotted(node.func)):
            path = self.path_of(dotted)
            if path.partition(".")[0] in _CONSTRAINTS:
                make = _imported(path)
                args = [self._value(item) for item in node.args]
                named = {word.arg: self._value(word.value) for word in node.keywords if word.arg}
                if make is not SET_BY_THE_CODE and SET_BY_THE_CODE not in (*args, *named.values()):
                    return make(*args, **named)
        return SET_BY_THE_CODE

    def path_of(self, dotted: str) -> str:
        """Returns the dotted path from which a name was imported."""
        first, _, rest = dotted.partition(".")
        member = self._module.members.get(first)
        if isinstance(member, griffe.Alias):
            return f"{member.target_path}.{rest}".rstrip(".")
        return f"builtins.{dotted}" if member is None and hasattr(builtins, first) else dotted

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, (ast.Name, ast.Attribute)):
            dotted = _dotted(node)
            found = self.name(dotted) if dotted else SET_BY_THE_CODE
            return SET_BY_THE_CODE if isinstance(found, types.ModuleType) else found
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            operand = self._value(node.operand)
            return (-operand if isinstance(node.op, ast.USub) else operand) if _is_number(operand) else SET_BY_THE_CODE
        if isinstance(node, ast.BinOp):
            return self._sum(node)
        if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
            items = [self._value(item) for item in node.elts]
            kind = {ast.Tuple: tuple, ast.List: list, ast.Set: set}[type(node)]
            return SET_BY_THE_CODE if any(item is SET_BY_THE_CODE for item in items) else kind(items)
        if isinstance(node, ast.Dict):
            pairs = [
                (self._value(key) if key is not None else SET_BY_THE_CODE, self._value(value))
                for key, value in zip(node.keys, node.values, strict=True)
            ]
            return SET_BY_THE_CODE if any(SET_BY_THE_CODE in pair for pair in pairs) else dict(pairs)
        return self._call(node) if isinstance(node, ast.Call) else SET_BY_THE_CODE

    def _sum(self, node: ast.BinOp) -> Any:
        apply = _OPERATORS.get(type(node.op))
        left, right = self._value(node.left), self._value(node.right)
        if isinstance(node.op, ast.Pow) and _is_number(left) and _is_number(right) and abs(right) <= 64:
            apply = operator.pow
        numbers = _is_number(left) and _is_number(right) and max(abs(left), abs(right)) < _LARGEST
        texts = isinstance(left, str) and isinstance(right, str) and len(left) + len(right) < _LONGEST
        if apply is None or not (numbers or (texts and apply is operator.add)):
            return SET_BY_THE_CODE
        return apply(left, right)

    def _call(self, node: ast.Call) -> Any:
        dotted = _dotted(node.func)
        path = self.path_of(dotted) if dotted else ""
        if path not in _CALLS:
            return SET_BY_THE_CODE
        args = [self._value(item) for item in node.args]
        named = {word.arg: self._value(word.value) for word in node.keywords if word.arg}
        if any(value is SET_BY_THE_CODE for value in (*args, *named.values())) or len(named) < len(node.keywords):
            return SET_BY_THE_CODE
        return _imported(path)(*args, **named)


def _parsed(expression: griffe.Expr | str | None) -> ast.expr | None:
    if expression is None:
        return None
    try:
        return ast.parse(str(expression), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _dotted(node: ast.expr) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(names)]) if isinstance(node, ast.Name) else ""


def _standard(path: str) -> Any:
    """Returns the object of a dotted path in one of the permitted modules of types."""
    module, _, name = path.rpartition(".")
    if path in _TYPES:
        return importlib.import_module(path)
    return getattr(importlib.import_module(module), name, SET_BY_THE_CODE) if module in _TYPES else SET_BY_THE_CODE


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name, SET_BY_THE_CODE)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
