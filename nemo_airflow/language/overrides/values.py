"""Reads the values of overrides as the annotations of their places want them.

One rule for a text, wherever it comes from: first what it says as a literal (``3``, ``true``, ``null``) where that
fits exactly; then the text as it stands, where a text fits; then what the annotation makes of it, such as a path,
a date or a member of an Enum. A value with a type of its own is only converted where nothing is lost: a whole number to
a float, a list to a tuple. A bool is no number.

An annotation of a kind that is not known here (an array, a protocol, a type of pydantic) lets any value through.
"""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Dict, List, Optional, Tuple

from nemo_airflow.language.errors import OverrideError
from nemo_airflow.language.hints import bare, class_of, element_of, hints_of, is_typed_dict, is_union
from nemo_airflow.language.overrides.coded import NODES as _NODES
from nemo_airflow.language.overrides.coded import holds_code
from nemo_airflow.language.overrides.conversions import from_text, from_value
from nemo_airflow.language.overrides.literals import literal_from_text
from nemo_airflow.language.overrides.nodes import Call, File, Items, Node, Pairs, Quoted, Word, literal, value_of
from nemo_airflow.language.overrides.syntax import parse_value
from nemo_airflow.language.texts import annotation_text, value_text

Keys = Tuple[Any, ...]

_PLAIN = (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset, type(None))


@dataclasses.dataclass(frozen=True)
class Misfit:
    """Why a value does not fit.

    Attributes:
        keys: Where in the value; empty for the value itself.
        message: For example ``expected int, got 'x'``.
    """

    keys: Keys
    message: str


class MisfitError(ValueError):
    """A value that cannot be converted to its annotation.

    Args:
        misfit: Where and why.
    """

    def __init__(self, misfit: Misfit) -> None:
        self.misfit = misfit
        super().__init__(misfit.message)


def _nothing(value: Any) -> bool:
    return False


def _anything(value: Any, annotation: Any) -> bool:
    return True


class Reader:
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
        stands_in: Callable[[Any], bool] = _nothing,
        make: Optional[Callable[[Any, Any, Keys], Any]] = None,
        is_code: Callable[[Any], bool] = _nothing,
        reads_numbers: bool = True,
        result_fits: Callable[[Any, Any], bool] = _anything,
        accepts: Optional[Callable[[Any, Any], bool]] = None,
    ) -> None:
        self._stands_in = stands_in
        self._make = make
        self._is_code = is_code
        self._reads_numbers = reads_numbers
        self._result_fits = result_fits
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

    def fits(self, annotation: Any, value: Any) -> bool:
        """Returns whether a value fits an annotation as it is; a bool is no number, but a number is a float."""
        if is_open(annotation):
            return True
        if self._stands_in(value):
            return self._result_fits(value, annotation)
        annotation = bare(annotation)
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
        if is_union(origin):
            return any(self.fits(arg, value) for arg in args)
        if origin is typing.Literal:
            return any(type(value) is type(arg) and value == arg for arg in args)
        if annotation is None or annotation is type(None):
            return value is None
        kind: Any = class_of(annotation)
        if kind is collections.abc.Callable:
            return callable(value)
        if kind is type:
            return isinstance(value, type)
        if is_typed_dict(kind):
            return isinstance(value, dict) and self._fit_fields(kind, value)
        if kind is float:
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        if kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        if not isinstance(value, kind) or (isinstance(value, (str, bytes)) and kind not in (str, bytes, type(value))):
            return _is_text_container(kind, args, value)
        if kind is tuple and isinstance(value, tuple) and _has_other_length(args, value):
            return False
        return not args or all(self.fits(element_of(annotation, key), item) for key, item in _items(value))

    def _fit_fields(self, kind: Any, value: Mapping[Any, Any]) -> bool:
        required = getattr(kind, "__required_keys__", ())
        return set(required) <= set(value) and all(
            self.fits(hints_of(kind).get(key, Any), item) for key, item in value.items()
        )

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
            raise MisfitError(Misfit(keys, _expected(annotation, made)))
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
        members = _members(annotation)
        has_quotes = says is text
        if has_quotes and any(self.fits(member, text) for member in members):
            return text
        said = self._read_literal(text) if has_quotes else says
        if self._reads_numbers or said is None:
            for test in (_is_exactly, self.fits):
                for member in members:
                    if said is not text and test(member, said):
                        return self._typed(member, said, keys)
        if any(self.fits(member, text) for member in members):
            return text
        for member in members:
            try:
                return self._converted(member, text, said, keys)
            except MisfitError as error:
                if error.misfit.keys != keys and len(_without_none(members)) == 1:  # that says where in it
                    raise
        if self._make is not None and has_quotes:
            # A form's field, or a value of a run's conf, at a place that only a factory fits.
            node = _parsed(text)
            if isinstance(node, (Call, File)):
                return self._fitting(self._make(node, annotation, keys), annotation, keys)
        raise MisfitError(Misfit(keys, _expected(annotation, says if keys else text)))

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
            raise MisfitError(Misfit(keys, _expected(member, text)))
        return found

    def _of_union(self, annotation: Any, given: Any, keys: Keys) -> Any:
        plain = value_of(given) if isinstance(given, _NODES) and not _has_code(given) else given
        members = typing.get_args(annotation)
        for test in (_is_exactly, self.fits):
            for member in members:
                if not isinstance(plain, _NODES) and test(member, plain):
                    return self._read(member, given, keys)
        candidates = _without_none(members) if plain is not None else members
        holders = [member for member in candidates if _may_hold(member, given)]
        for member in holders or candidates:
            try:
                return self._read(member, given, keys)
            except MisfitError:
                if len(holders) == 1 or len(candidates) == 1:
                    raise
        shown = self._plain(given, keys) if isinstance(plain, _NODES) else plain
        raise MisfitError(Misfit(keys, _expected(annotation, shown)))

    def _typed(self, annotation: Any, given: Any, keys: Keys) -> Any:
        """Returns a value other than a text as one annotation wants it, which is no union."""
        bared = bare(annotation)
        kind = class_of(bared)
        if kind is object:  # a literal of an annotation
            if self.fits(bared, value := self._simplify(given)):
                return value
            raise MisfitError(Misfit(keys, _expected(annotation, value)))
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
            raise MisfitError(Misfit(keys, _expected(annotation, value)))
        return converted

    def _items(self, annotation: Any, kind: Any, given: Any, keys: Keys) -> Any:
        items = given.items if isinstance(given, Items) else _sorted(given)
        written = given.kind if isinstance(given, Items) else type(given).__name__
        args = typing.get_args(annotation)
        if kind is tuple and _has_other_length(args, items):
            raise MisfitError(Misfit(keys, _expected(annotation, self._simplify(given))))
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
            raise MisfitError(Misfit(keys, _expected(annotation, list(items)))) from None

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
            if not self._fit_fields(kind, made) or not set(made) <= set(hints_of(kind)):
                raise MisfitError(Misfit(keys, _expected(annotation, self._simplify(given))))
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


def widened(annotation: Any, default: Any) -> Any:
    """Returns an annotation that the parameter's own default fits, as in ``x: int = None``."""
    if default is inspect.Parameter.empty or is_open(annotation) or Reader().fits(annotation, default):
        return annotation
    return typing.Union[annotation, type(default)]


def is_open(annotation: Any) -> bool:
    """Returns whether any value fits an annotation, as far as can be known here."""
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, str):
        return True
    if any(type(note).__name__ in _VALIDATORS for note in getattr(annotation, "__metadata__", ())):
        return True
    annotation = bare(annotation)
    if annotation in (Any, object) or isinstance(annotation, (str, typing.TypeVar)):
        return True
    origin = typing.get_origin(annotation)
    if annotation is None or is_union(origin) or origin is typing.Literal:
        return False
    kind = origin or annotation
    if not isinstance(kind, type):
        return True
    return getattr(kind, "_is_protocol", False) or hasattr(kind, "__get_pydantic_core_schema__")


_VALIDATORS = ("BeforeValidator", "PlainValidator", "WrapValidator")
"""Notes of annotations that decide themselves what fits."""


def _members(annotation: Any) -> Sequence[Any]:
    annotation = bare(annotation)
    if not is_union(typing.get_origin(annotation)):
        return (annotation,)
    return [inner for arg in typing.get_args(annotation) for inner in _members(arg)]


def _without_none(members: Iterable[Any]) -> List[Any]:
    return [member for member in members if member not in (None, type(None))]


def _takes_only_text(annotation: Any) -> bool:
    if is_open(annotation):
        return False
    kinds = [class_of(member) for member in _members(annotation)]
    return str in kinds and all(kind in (str, int, float, bool, type(None)) for kind in kinds)


def _is_exactly(annotation: Any, value: Any) -> bool:
    """Returns whether a value is of the annotated type itself, rather than of one that fits, too."""
    if annotation in (None, type(None)):
        return value is None
    if typing.get_origin(annotation) is typing.Literal:
        return any(type(value) is type(arg) and value == arg for arg in typing.get_args(annotation))
    return type(value) is annotation and annotation in (bool, int, float, complex, str, bytes)


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


def _is_text_container(kind: Any, args: Sequence[Any], value: Any) -> bool:
    """Returns whether a text is a collection of texts, as for ``Iterable[str]``, other than a sequence."""
    if not isinstance(value, str) or kind.__module__ != "collections.abc" or not isinstance(value, kind):
        return False
    return not issubclass(kind, collections.abc.Sequence) and (not args or args[0] in (str, Any))


def _items(value: Any) -> Iterable[Tuple[Any, Any]]:
    if isinstance(value, collections.abc.Mapping):
        return value.items()
    if isinstance(value, (list, tuple)):
        return enumerate(value)
    return ((0, item) for item in value) if isinstance(value, collections.abc.Set) else ()


def _has_other_length(args: Sequence[Any], items: Sequence[Any]) -> bool:
    """Returns whether a tuple with these annotations has another number of items."""
    if not args or args[-1] is ...:
        return False
    return (0 if args == ((),) else len(args)) != len(items)


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
        raise MisfitError(Misfit(keys, _expected(annotation, value))) from None


def _expected(annotation: Any, value: Any) -> str:
    members = _members(annotation)
    others = _without_none(members)
    shown = others[0] if len(others) == 1 and value is not None else bare(annotation)
    return f"expected {annotation_text(shown)}, got {value_text(value)}"
