"""Reads the values of overrides as the annotations of their places want them.

One rule for a text, wherever it comes from: first what it says as a literal (``3``, ``true``, ``null``) where that
fits exactly; then the text as it stands, where a text fits; then what the annotation makes of it, such as a path,
a date or a member of an Enum. A value with a type of its own is only converted where nothing is lost: a whole number to
a float, a list to a tuple. A bool is no number. Whether a value fits is for
:mod:`nemo_airflow.language.overrides.fits`.
"""

from __future__ import annotations

import collections
import collections.abc
import enum
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Dict, Optional, Tuple

from nemo_airflow.language.errors import OverrideError
from nemo_airflow.language.hints import bare, class_of, element_of, hints_of, is_typed_dict, is_union
from nemo_airflow.language.overrides.coded import NODES as _NODES
from nemo_airflow.language.overrides.coded import holds_code
from nemo_airflow.language.overrides.conversions import from_text, from_value
from nemo_airflow.language.overrides.fits import (
    Fit,
    Keys,
    Misfit,
    MisfitError,
    always,
    expectation,
    has_other_length,
    is_exactly,
    is_open,
    members_of,
    never,
    without_none,
)
from nemo_airflow.language.overrides.literals import literal_from_text
from nemo_airflow.language.overrides.nodes import Call, File, Items, Node, Pairs, Quoted, Word, literal, value_of
from nemo_airflow.language.overrides.syntax import parse_value
from nemo_airflow.language.texts import value_text


class Reader(Fit):
    """Reads values as annotations want them.

    Args:
        stands_in: Whether a value stands for one of any type: a config, an artifact, a template.
        make: Makes the value of a call or a file, or of a mapping with keys of the plan's grammar; called with the
            node, its annotation and its keys.
        is_code: Whether a node or value is one for ``make``.
        reads_numbers: Whether a text may be the number that it says; not in a plan, where numbers have a type.
        result_fits: Whether what stands in for a value, or was made, yields one that fits an annotation.
        accepts: Whether a value, not of an override's text, fits an annotation as it is.
    """

    def __init__(
        self,
        stands_in: Callable[[Any], bool] = never,
        make: Optional[Callable[[Any, Any, Keys], Any]] = None,
        is_code: Callable[[Any], bool] = never,
        reads_numbers: bool = True,
        result_fits: Callable[[Any, Any], bool] = always,
        accepts: Optional[Callable[[Any, Any], bool]] = None,
    ) -> None:
        super().__init__(stands_in, result_fits)
        self._make = make
        self._is_code = is_code
        self._reads_numbers = reads_numbers
        self._accepts = self.fits if accepts is None else accepts
        self._dicts: Dict[Tuple[int, int], Tuple[Any, Any, Any]] = {}

    def read(self, annotation: Any, given: Any, text: Optional[str] = None) -> Any:
        """Returns a value converted to its annotation.

        Args:
            annotation: The annotation.
            given: A node of an override, or a value.
            text: The node as it was written, for a place that takes a text.

        Raises:
            MisfitError: It does not fit.
        """
        if not isinstance(given, _NODES) and not holds_code(given) and self._accepts(annotation, given):
            return given
        if text is not None and isinstance(given, Call) and _takes_only_text(annotation):
            return text
        try:
            return self._read(annotation, given, ())
        except MisfitError:
            if text is not None and isinstance(given, (Items, Pairs)) and self.fits(annotation, text):
                return text
            raise

    def _read(self, annotation: Any, given: Any, keys: Keys) -> Any:
        if self._stands_in(given):
            return self._fitting(given, annotation, keys)
        if self._make is not None and self._is_code(given):
            return self._fitting(self._make(given, annotation, keys), annotation, keys)
        if isinstance(given, Word):
            if self._stands_in(given.text):
                return given.text
            return self._text(annotation, given.text, literal(given.text), keys)
        if isinstance(given, (Quoted, str)) and not isinstance(given, enum.Enum):
            text = given.text if isinstance(given, Quoted) else given
            if self._stands_in(text):
                return text
            return self._text(annotation, text, text, keys)
        if is_open(annotation):
            return self._plain(given, keys)
        if is_union(typing.get_origin(bare(annotation))):
            return self._of_union(bare(annotation), given, keys)
        return self._typed(annotation, given, keys)

    def _fitting(self, made: Any, annotation: Any, keys: Keys) -> Any:
        if not self._result_fits(made, annotation):
            raise MisfitError(Misfit(keys, expectation(annotation, made)))
        return made

    def _text(self, annotation: Any, text: str, says: Any, keys: Keys) -> Any:
        """Returns the value of a text.

        Args:
            annotation: The annotation.
            text: The text.
            says: The literal that it says, if it has no quotes; else the text itself.
            keys: Where it is.
        """
        if is_open(annotation):
            return says
        members = members_of(annotation)
        has_quotes = says is text
        if has_quotes and any(self.fits(member, text) for member in members):
            return text
        said = self._read_literal(text) if has_quotes else says
        if self._reads_numbers or said is None:
            for test in (is_exactly, self.fits):
                for member in members:
                    if said is not text and test(member, said):
                        return self._typed(member, said, keys)
        if any(self.fits(member, text) for member in members):
            return text
        for member in members:
            try:
                return self._converted(member, text, said, keys)
            except MisfitError as error:
                if error.misfit.keys != keys and len(without_none(members)) == 1:  # that says where in it
                    raise
        if self._make is not None and has_quotes:
            # A form's field, or a value of a run's conf, at a place that only a factory fits.
            node = _parsed(text)
            if isinstance(node, (Call, File)):
                return self._fitting(self._make(node, annotation, keys), annotation, keys)
        raise MisfitError(Misfit(keys, expectation(annotation, says if keys else text)))

    def _read_literal(self, text: str) -> Any:
        try:
            return literal_from_text(text)
        except ValueError:
            return text

    def _converted(self, member: Any, text: str, said: Any, keys: Keys) -> Any:
        """Returns what one annotation makes of a text."""
        kind = class_of(member)
        if isinstance(said, (list, tuple, dict, set)) and self._reads_numbers:
            return self._typed(member, said, keys)
        number = said if self._reads_numbers and isinstance(said, (int, float)) else None
        found = from_text(kind, text, number)
        if found is None or not self.fits(member, found):
            raise MisfitError(Misfit(keys, expectation(member, text)))
        return found

    def _of_union(self, annotation: Any, given: Any, keys: Keys) -> Any:
        plain = value_of(given) if isinstance(given, _NODES) and not _has_code(given) else given
        members = typing.get_args(annotation)
        for test in (is_exactly, self.fits):
            for member in members:
                if not isinstance(plain, _NODES) and test(member, plain):
                    return self._read(member, given, keys)
        candidates = without_none(members) if plain is not None else members
        holders = [member for member in candidates if _may_hold(member, given)]
        for member in holders or candidates:
            try:
                return self._read(member, given, keys)
            except MisfitError:
                if len(holders) == 1 or len(candidates) == 1:
                    raise
        shown = self._plain(given, keys) if isinstance(plain, _NODES) else plain
        raise MisfitError(Misfit(keys, expectation(annotation, shown)))

    def _typed(self, annotation: Any, given: Any, keys: Keys) -> Any:
        """Returns a value other than a text as one annotation wants it, which is no union."""
        bared = bare(annotation)
        kind = class_of(bared)
        if kind is object:  # a literal of an annotation
            if self.fits(bared, value := self._simplify(given)):
                return value
            raise MisfitError(Misfit(keys, expectation(annotation, value)))
        if isinstance(given, (Pairs, dict)) and issubclass(kind, collections.abc.Mapping):
            return self._mapping(bared, kind, given, keys)
        if isinstance(given, (Items, list, tuple, set, frozenset)) and _is_iterable(kind):
            return self._items(bared, kind, given, keys)
        value = value_of(given) if isinstance(given, _NODES) else given
        if kind is float and type(value) is int:
            return _float(value, annotation, keys)
        if self.fits(bared, value):
            return value
        converted = from_value(kind, value)
        if converted is None or not self.fits(bared, converted):
            raise MisfitError(Misfit(keys, expectation(annotation, value)))
        return converted

    def _items(self, annotation: Any, kind: Any, given: Any, keys: Keys) -> Any:
        items = given.items if isinstance(given, Items) else _sorted(given)
        written = given.kind if isinstance(given, Items) else type(given).__name__
        args = typing.get_args(annotation)
        if kind is tuple and has_other_length(args, items):
            raise MisfitError(Misfit(keys, expectation(annotation, self._simplify(given))))
        if type(given) is list and args and _are_exactly(items, args[0]) and kind is list:
            return given
        if hasattr(kind, "_fields"):
            return self._named_tuple(annotation, kind, items, keys)
        made = [self._read(element_of(annotation, key), item, (*keys, key)) for key, item in enumerate(items)]
        make = _container(kind, written)
        if type(given) is make and all(new is old for new, old in zip(made, items)):
            return given
        try:
            return make(made)
        except TypeError as error:  # a member that cannot be hashed
            raise MisfitError(Misfit(keys, str(error))) from None

    def _named_tuple(self, annotation: Any, kind: Any, items: Sequence[Any], keys: Keys) -> Any:
        hints = hints_of(kind)
        made = [self._read(hints.get(name, Any), item, (*keys, name)) for name, item in zip(kind._fields, items)]
        try:
            return kind(*made, *items[len(made) :])
        except TypeError:
            raise MisfitError(Misfit(keys, expectation(annotation, list(items)))) from None

    def _mapping(self, annotation: Any, kind: Any, given: Any, keys: Keys) -> Any:
        """Returns the value of a mapping; once, though it may be in several places, like that of a YAML anchor."""
        key = (id(given), id(annotation))
        if key not in self._dicts:
            self._dicts[key] = (self._new_mapping(annotation, kind, given, keys), given, annotation)
        return self._dicts[key][0]

    def _new_mapping(self, annotation: Any, kind: Any, given: Any, keys: Keys) -> Any:
        pairs = list(given.items()) if isinstance(given, dict) else list(given.pairs)
        args = typing.get_args(annotation)
        key_kind = args[0] if args and not is_typed_dict(kind) else Any
        made = {}
        for key, item in pairs:
            plain = value_of(key) if isinstance(key, (Word, Quoted)) else key
            try:
                read = self._read(key_kind, key, ())
            except MisfitError as error:
                raise MisfitError(Misfit(keys, f"the key {value_text(plain)}: {error.misfit.message}")) from None
            made[read] = self._read(element_of(annotation, plain), item, (*keys, read))
        if type(given) is dict and all(new is old for new, old in zip(made.values(), given.values())):
            made = given if made == given else made
        if is_typed_dict(kind):
            if not self.fit_fields(kind, made) or not set(made) <= set(hints_of(kind)):
                raise MisfitError(Misfit(keys, expectation(annotation, self._simplify(given))))
            return made
        if issubclass(kind, collections.defaultdict):
            return kind(None, made)
        return kind(made) if kind in (collections.OrderedDict, collections.Counter) else made

    def _plain(self, given: Any, keys: Keys) -> Any:
        """Returns a value at a place without an annotation."""
        if isinstance(given, Items):
            return self._items(Any, object, given, keys)
        if isinstance(given, Pairs):
            return self._mapping(Any, object, given, keys)
        if isinstance(given, dict) and type(given) is dict:
            return self._mapping(Any, object, given, keys)
        if type(given) in (list, tuple):
            return self._items(Any, object, given, keys)
        return given

    def _simplify(self, given: Any) -> Any:
        return value_of(given) if isinstance(given, _NODES) and not _has_code(given) else given


def _parsed(text: str) -> Optional[Node]:
    try:
        return parse_value(text)
    except OverrideError:
        return None


def _takes_only_text(annotation: Any) -> bool:
    if is_open(annotation):
        return False
    kinds = [class_of(member) for member in members_of(annotation)]
    return str in kinds and all(kind in (str, int, float, bool, type(None)) for kind in kinds)


def _are_exactly(items: Iterable[Any], kind: Any) -> bool:
    return kind in (bool, int, float, str) and all(type(item) is kind for item in items)


def _may_hold(annotation: Any, given: Any) -> bool:
    kind = class_of(annotation)
    if isinstance(given, (Pairs, dict)):
        return issubclass(kind, collections.abc.Mapping)
    if isinstance(given, (Items, list, tuple, set, frozenset)):
        return kind is not object and _is_iterable(kind)
    return False


def _has_code(node: Any) -> bool:
    if isinstance(node, (Call, File)):
        return True
    if isinstance(node, Items):
        return any(map(_has_code, node.items))
    return isinstance(node, Pairs) and any(_has_code(item) for _, item in node.pairs)


def _is_iterable(kind: Any) -> bool:
    if kind is object:
        return True
    return issubclass(kind, (collections.abc.Iterable, collections.abc.Container)) and not (
        issubclass(kind, (str, bytes, bytearray, collections.abc.Mapping, enum.Enum)) or isinstance(kind, enum.EnumMeta)
    )


def _container(kind: Any, written: str) -> Any:
    own = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}.get(written, list)
    if kind in (list, tuple, set, frozenset, collections.deque):
        return kind
    if kind is object or issubclass(own, kind):
        return own
    return set if issubclass(set, kind) else tuple if issubclass(kind, tuple) else list


def _sorted(given: Any) -> Sequence[Any]:
    if isinstance(given, (set, frozenset)):
        return sorted(given, key=lambda item: (type(item).__name__, repr(item)))
    return given  # type: ignore[no-any-return]


def _float(value: int, annotation: Any, keys: Keys) -> float:
    try:
        return float(value)
    except OverflowError:
        raise MisfitError(Misfit(keys, expectation(annotation, value))) from None
