"""Whether a callable accepts the call that an annotation describes."""

from __future__ import annotations

import inspect
import typing
from typing import Any

import fiddle as fdl
import typing_extensions

_CONCATENATE = (typing.Concatenate, typing_extensions.Concatenate)


def takes(value: Any, args: tuple[Any, ...]) -> bool:
    """Returns whether a callable accepts the arguments of ``Callable[...]``; True where that cannot be known.

    Only the number of arguments is checked.

    Args:
        value: A callable, or a partial.
        args: The arguments of ``Callable``: those of the call, and the result; or none.
    """
    if len(args) != 2 or args[0] is ... or isinstance(args[0], typing.ParamSpec):
        return True
    is_open = typing.get_origin(args[0]) in _CONCATENATE
    count = len(typing.get_args(args[0])) - 1 if is_open else len(args[0])
    if isinstance(value, fdl.Partial):
        partial = value
        # Named arguments of a partial may still be removed or set, so only too many positional ones count.
        value, is_open = value.__fn_or_cls__, True
        count += sum(isinstance(key, int) for key in partial.__arguments__)
    try:
        # What a wrapper takes may differ from what it wraps.
        signature = inspect.signature(value, follow_wrapped=False)
        bind = signature.bind_partial if is_open else signature.bind
    except (TypeError, ValueError):
        return True
    try:
        bind(*[None] * count)
    except TypeError:
        return False
    return True
