"""Config classes, which have fields and no target: the class of the objects that such a config makes."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, List

from nemo_airflow.language.hints import own_annotations
from nemo_airflow.language.record import Record


def add_record(cls: Any) -> bool:
    """Gives a config class the class of the objects that it makes: with its fields and those of its bases, by name.

    Args:
        cls: The config class, the job's or Fiddle's.

    Returns:
        Whether it has fields, or a base has.
    """
    own = own_annotations(cls)
    if not own and cls.__record__ is None:
        return False
    listed: List[Any] = [(name, kind, *([vars(cls)[name]] if name in vars(cls) else ())) for name, kind in own.items()]
    names = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.__record__"}
    bases = (cls.__record__ or Record,)
    # Without a constructor: before Python 3.10 it takes no field with a default before one without.
    record: Any = dataclasses.make_dataclass(
        cls.__name__, listed, bases=bases, namespace=names, eq=False, repr=False, init=False
    )
    fields = [field for field in dataclasses.fields(record) if field.init]
    signature = inspect.Signature([_by_name(field) for field in fields])

    def init(self: Any, **values: Any) -> None:
        given = signature.bind(**values).arguments
        made = {field.name: given[field.name] if field.name in given else _default_of_field(field) for field in fields}
        Record.__init__(self, **made)

    record.__init__, record.__signature__ = init, signature
    for field in fields:  # and no ``ClassVar``
        if field.name in vars(cls):
            type.__delattr__(cls, field.name)  # it would hide what is set on a config
    cls.__record__ = record
    return True


def _by_name(field: Any) -> inspect.Parameter:
    default = field.default
    if default is dataclasses.MISSING:
        default = inspect.Parameter.empty if field.default_factory is dataclasses.MISSING else field.default_factory
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type)


def _default_of_field(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
