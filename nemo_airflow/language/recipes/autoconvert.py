"""Turns a plain function that returns an object into one that returns its config.

The function's calls are rewritten: a call of a class or function of the user or of a library becomes
a config of that call, so that its arguments can be seen, recorded and changed before anything is made.
Calls of builtins and of the standard library run at once: they compute values.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any, Optional, Tuple

from nemo_airflow.language.configs import Config, Partial, named, positional

_CALL = "__nemo_airflow_call__"

_PLAIN = frozenset(
    getattr(
        sys,
        "stdlib_module_names",  # Python 3.10
        ("abc", "ast", "base64", "collections", "copy", "datetime", "decimal", "enum", "fractions", "functools", "glob",
         "hashlib", "itertools", "json", "logging", "math", "operator", "os", "pathlib", "platform", "random", "re",
         "statistics", "string", "sys", "tempfile", "textwrap", "time", "typing", "uuid", "warnings"),
    )
)  # fmt: skip


class AutoconvertError(TypeError):
    """A function that cannot be converted."""


class Converted:
    """A function that returns the config of the plain function's result.

    Args:
        plain: The function.
        config: Makes the config of a call.
        partial: Makes the config of a ``functools.partial``, and of the root with ``as_partial``.
        as_partial: Whether the config is of a callable, to be called later.
    """

    def __init__(
        self, plain: Callable[..., Any], config: Callable[..., Any], partial: Callable[..., Any], as_partial: bool
    ) -> None:
        self.plain = plain
        self._make_config, self._make_partial = config, partial
        self._as_partial = as_partial
        self._rewritten: Optional[Callable[..., Any]] = None
        functools.update_wrapper(self, plain)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the config."""
        if self._rewritten is None:
            self._rewritten = _rewrite(self.plain, self._call)
        made = self._rewritten(*args, **kwargs)
        if not self._as_partial or getattr(made, "__fn_or_cls__", None) is None:
            return made
        return self._make_partial(made.__fn_or_cls__, *positional(made), **named(made))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def _call(self, target: Any, /, *args: Any, **kwargs: Any) -> Any:
        if target is functools.partial:
            return self._make_partial(*args, **kwargs)
        if isinstance(target, Converted) or not _becomes_a_config(target):
            return target(*args, **kwargs)
        return self._make_config(target, *args, **kwargs)


def autoconvert(plain: Any = None, *, partial: bool = False) -> Any:
    """Makes a function that returns an object into one that returns its config.

    Its calls of other functions and classes become configs; see above for which.

    Args:
        plain: The function; a decorator when None.
        partial: Whether the config is of a callable, to be called later.
    """
    if plain is None:
        return lambda function: autoconvert(function, partial=partial)
    return convert(plain, Config, Partial, partial)


def convert(
    plain: Callable[..., Any],
    config: Callable[..., Any],
    partial: Callable[..., Any],
    as_partial: bool = False,
) -> Converted:
    """Returns the converted function.

    Raises:
        AutoconvertError: It is not a plain function of a module: a lambda, a method, one with outer variables.
    """
    if isinstance(plain, Converted):
        return plain
    if not isinstance(plain, types.FunctionType) or plain.__name__ == "<lambda>":
        raise AutoconvertError(f"autoconvert takes a function written with def, not {plain!r}")
    if plain.__closure__:
        names = ", ".join(plain.__code__.co_freevars)
        raise AutoconvertError(
            f"{plain.__qualname__} uses {names} of an enclosing function: define it at the top of a module"
        )
    if inspect.iscoroutinefunction(plain) or inspect.isgeneratorfunction(plain):
        raise AutoconvertError(
            f"{plain.__qualname__} is a coroutine or a generator and cannot return a config: use neither"
        )
    return Converted(plain, config, partial, as_partial)


def _becomes_a_config(target: Any) -> bool:
    if isinstance(target, type) and any(_is_config_class(base) for base in target.__mro__):
        return False  # a config that is written out
    if isinstance(target, types.MethodType):  # of a class it makes an object; of an object it computes
        return isinstance(target.__self__, type) and _is_foreign(target.__module__)
    if isinstance(target, (type, types.FunctionType, types.BuiltinFunctionType)):
        return _is_foreign(getattr(target, "__module__", None))
    return False


def _is_config_class(base: type) -> bool:
    return base.__name__ == "Buildable" or base.__module__ == "nemo_airflow.language.configs"


def _is_foreign(module: Optional[str]) -> bool:
    return module is not None and module.partition(".")[0] not in _PLAIN and module != "builtins"


class _Calls(ast.NodeTransformer):
    """Rewrites ``f(x)`` as ``CALL(f, x)``, in the function's own body only."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = ast.copy_location(ast.Name(_CALL, ast.Load()), node.func)
        return ast.copy_location(ast.Call(name, [node.func, *node.args], node.keywords), node)

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        return node  # called by others, later

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node

    visit_AsyncFunctionDef = visit_FunctionDef  # type: ignore[assignment]
    visit_ClassDef = visit_FunctionDef  # type: ignore[assignment]

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        return node  # exceptions are created, not configured

    visit_Assert = visit_Raise  # type: ignore[assignment]


def _rewrite(plain: Callable[..., Any], call: Callable[..., Any]) -> Callable[..., Any]:
    assert isinstance(plain, types.FunctionType)  # noqa: S101 - convert() has looked
    definition, file, first = _parsed(plain)
    body = [_Calls().visit(statement) for statement in definition.body]
    definition.body = body
    definition.decorator_list = []
    definition.returns = None
    for argument in ast.walk(definition.args):
        if isinstance(argument, ast.arg):
            argument.annotation = None
    # Defaults were evaluated at the function's definition and are copied from it below.
    definition.args.defaults = [ast.copy_location(ast.Constant(None), node) for node in definition.args.defaults]
    definition.args.kw_defaults = [
        None if node is None else ast.copy_location(ast.Constant(None), node) for node in definition.args.kw_defaults
    ]
    # Passed as an argument: the function keeps its module's globals, which stay unchanged.
    definition.args.kwonlyargs.append(ast.arg(_CALL))
    definition.args.kw_defaults.append(ast.Constant(None))
    module = ast.fix_missing_locations(ast.Module([definition], []))
    ast.increment_lineno(module, first - 1)
    compiled = compile(module, file, "exec", dont_inherit=True)
    code = next(
        constant
        for constant in compiled.co_consts
        if isinstance(constant, types.CodeType) and constant.co_name == plain.__name__
    )
    made = types.FunctionType(code, plain.__globals__, plain.__name__, plain.__defaults__)
    made.__kwdefaults__ = {**(plain.__kwdefaults__ or {}), _CALL: call}
    return made


def _parsed(plain: types.FunctionType) -> Tuple[ast.FunctionDef, str, int]:
    try:
        lines, first = inspect.getsourcelines(plain)
    except (OSError, TypeError) as error:
        raise AutoconvertError(
            f"the source of {plain.__qualname__} cannot be found, so it cannot be converted: define it in a file"
        ) from error
    parsed = ast.parse(textwrap.dedent("".join(lines)))
    definition = parsed.body[0]
    if not isinstance(definition, ast.FunctionDef):
        raise AutoconvertError(f"{plain.__qualname__} is not defined by a def statement of its own")
    return definition, plain.__code__.co_filename, first
