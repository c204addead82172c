"""Whether what a config of Fiddle's yields fits an annotation."""

from __future__ import annotations

from typing import Any

import fiddle as fdl

from nemo_airflow.config.types.graph import recipe_overrides
from nemo_airflow.language import results


def result_fits(buildable: Any, annotation: Any) -> bool:
    """Returns whether a config's built value fits an annotation; True where that cannot be known.

    Args:
        buildable: A config, a partial or an argument factory.
        annotation: A class, ``Callable``, or anything else.
    """
    if recipe_overrides(buildable) is not None:
        return True  # a recipe's result is only known in the job
    return results.result_fits(buildable, annotation, is_partial=isinstance(buildable, fdl.Partial))


def takes(value: Any, args: tuple[Any, ...]) -> bool:
    """Returns whether a callable, or a partial, accepts the arguments of ``Callable[...]``."""
    return results.takes_call(value, args, is_partial=isinstance(value, fdl.Partial))
