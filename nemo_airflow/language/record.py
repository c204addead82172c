"""The object of a config class in the job: plain named values."""

from __future__ import annotations


class Record:
    """Named values, read as attributes.

    Args:
        values: The values by name.
    """

    def __init__(self, **values: object) -> None:
        self.__dict__.update(values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # equal by value and mutable, as a list is

    def __repr__(self) -> str:
        return "Record({})".format(", ".join(f"{name}={value!r}" for name, value in vars(self).items()))
