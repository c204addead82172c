"""Annotations of targets, resolved one by one without those that cannot be resolved, and what is in them."""

from __future__ import annotations

import ast
import builtins
import collections
import collections.abc
import dataclasses
import functools
import inspect
import sys
import typing
from collections.abc import Mapping
from typing import Any, Dict, Union

_UNION = "__nemo_airflow_union__"


def read_hints(target: Any) -> Dict[str, Any]:
    """Returns the annotations of a target's parameters by name, and of its result as ``return``.

    Annotations written as texts are resolved. One that cannot be, such as a name that is imported for type
    checkers only, is not in the result.
    """
    if not isinstance(target, type):
        return own_hints(inspect.unwrap(target))
    constructor: Any = target.__init__ if target.__init__ is not object.__init__ else target.__new__  # type: ignore[misc]
    hints = own_hints(inspect.unwrap(constructor))
    if _has_own_fields(target):  # whose generated constructor knows neither their module nor, in a model, their types
        for base in reversed(target.__mro__):
            hints.update(own_hints(base))
    return hints


def hints_of(target: Any) -> Mapping[str, Any]:
    """Like :func:`read_hints`, cached for each target that can be hashed."""
    try:
        return _cached_hints(target)
    except TypeError:
        return read_hints(target)


_cached_hints = functools.lru_cache(maxsize=4096)(read_hints)


def annotation_of(target: Any, key: Any) -> Any:
    """Returns the annotation of a target's parameter, ``Any`` where there is none, or it cannot be resolved."""
    return hints_of(target).get(key, Any) if isinstance(key, str) else Any


def element_of(annotation: Any, key: Any) -> Any:
    """Returns the annotation of what a container holds under a key, ``Any`` where there is none."""
    annotation = bare(annotation)
    if is_union(typing.get_origin(annotation)):
        members = [arg for arg in typing.get_args(annotation) if typing.get_args(arg) or has_fields(arg)]
        return element_of(members[0], key) if len(members) == 1 else Any
    kind, args = class_of(annotation), typing.get_args(annotation)
    if has_fields(kind):
        return hints_of(kind).get(key, Any)
    if not args:
        return Any
    if issubclass(kind, tuple):
        if len(args) == 2 and args[1] is ...:
            return args[0]
        return args[key] if isinstance(key, int) and key < len(args) else Any
    if issubclass(kind, collections.Counter):
        return int
    if issubclass(kind, collections.abc.Mapping):
        return args[1] if len(args) == 2 else Any
    return args[0] if issubclass(kind, (collections.abc.Iterable, collections.abc.Container)) else Any


def class_of(annotation: Any) -> type:
    """Returns the class whose instances an annotation is for; ``object`` where that is not one class."""
    found = typing.get_origin(bare(annotation)) or bare(annotation)
    return found if isinstance(found, type) else object


def has_fields(kind: Any) -> bool:
    """Returns whether a class is a named tuple, or a dict of known keys."""
    return isinstance(kind, type) and (hasattr(kind, "_fields") or is_typed_dict(kind))


def is_typed_dict(kind: Any) -> bool:
    """Returns whether a class is a ``TypedDict``."""
    return isinstance(kind, type) and issubclass(kind, dict) and hasattr(kind, "__total__")


def bare(annotation: Any) -> Any:
    """Returns an annotation without qualifiers and metadata; a type variable as its bound or constraints."""
    while True:
        origin = typing.get_origin(annotation)
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif getattr(origin, "_name", None) in _QUALIFIERS or getattr(origin, "__name__", None) in _QUALIFIERS:
            annotation = typing.get_args(annotation)[0]
        elif isinstance(annotation, typing.TypeVar):
            of = annotation.__constraints__
            annotation = annotation.__bound__ or (Union[of] if of else Any)
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "InitVar":
            annotation = annotation.type
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            return annotation


_QUALIFIERS = ("Final", "ClassVar", "Required", "NotRequired", "ReadOnly")


def is_union(origin: Any) -> bool:
    """Returns whether the origin of an annotation is that of ``Union[X, Y]`` or ``X | Y``."""
    return origin is Union or getattr(origin, "__name__", "") == "UnionType"  # of Python 3.10


def _has_own_fields(target: type) -> bool:
    is_record = (
        dataclasses.is_dataclass(target) or hasattr(target, "model_fields") or hasattr(target, "__attrs_attrs__")
    )
    return is_record or (issubclass(target, tuple) and hasattr(target, "_fields"))


def own_hints(source: Any) -> Dict[str, Any]:
    """Returns the annotations of a function, or those in the body of a class without those of its bases."""
    try:
        own = own_annotations(source)
        hints = typing.get_type_hints(source, include_extras=True) if own else {}
        return {name: hints[name] for name in own if name in hints}
    except Exception:  # noqa: BLE001 - an annotation is any expression, and evaluating it may raise anything
        return _one_by_one(source)


def own_annotations(source: Any) -> Dict[str, Any]:
    """Like :func:`own_hints`, with annotations that are texts left as they are."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(source, format=annotationlib.Format.FORWARDREF)
    if isinstance(source, type):
        # Not inspect.get_annotations, which needs Python 3.10.
        return dict(source.__dict__.get("__annotations__") or {})  # noqa: RUF063
    return dict(getattr(source, "__annotations__", None) or {})


def _one_by_one(source: Any) -> Dict[str, Any]:
    module = sys.modules.get(getattr(source, "__module__", "") or "")
    names = {**vars(builtins), **(vars(module) if module else {}), **getattr(source, "__globals__", {})}
    scope = dict(vars(source)) if isinstance(source, type) else {}
    names[_UNION] = typing.Union
    hints: Dict[str, Any] = {}
    for name, annotation in own_annotations(source).items():
        try:
            holder = type("_Holder", (), {"__annotations__": {name: _with_unions(annotation)}})
            hints[name] = typing.get_type_hints(holder, names, scope, include_extras=True)[name]
        except Exception:  # noqa: BLE001, S112 - as above
            continue
    return hints


def _with_unions(annotation: Any) -> Any:
    """Returns the text of an annotation with ``X | Y`` in a form that Python 3.9 can evaluate."""
    if sys.version_info >= (3, 10) or not isinstance(annotation, str) or "|" not in annotation:
        return annotation
    return ast.unparse(ast.fix_missing_locations(_Unions().visit(ast.parse(annotation, mode="eval"))))


class _Unions(ast.NodeTransformer):
    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.BitOr):
            return node
        members = ast.Tuple([node.left, node.right], ast.Load())
        return ast.copy_location(ast.Subscript(ast.Name(_UNION, ast.Load()), members, ast.Load()), node)
