"""The grammar of one override: what it reads, what it refuses and where, and that it reads what it writes."""

import datetime
import enum
import math
import pathlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nemo_airflow.language.errors import OverrideError, excerpt
from nemo_airflow.language.overrides.nodes import MAX_NESTING, Call, File, Items, Pairs, Quoted, Word
from nemo_airflow.language.overrides.operators import OPERATORS, combine
from nemo_airflow.language.overrides.paths import MAX_KEYS, parse_path
from nemo_airflow.language.overrides.syntax import MAX_TEXT, parse_override
from nemo_airflow.language.overrides.writing import format_override, format_value


@pytest.mark.parametrize(
    ("text", "path", "operator", "value"),
    [
        ("a.b=1", ("a", "b"), "=", 1),
        ("a.b += 1", ("a", "b"), "+=", 1),
        ("a-=-3", ("a",), "-=", -3),
        ("learning-rate=3", ("learning-rate",), "=", 3),
        ("a*=0.5", ("a",), "*=", 0.5),
        ("a/=2", ("a",), "/=", 2),
        ("a|={x: 1}", ("a",), "|=", {"x": 1}),
        ("a.list~=x", ("a", "list"), "~=", "x"),
        ("layers[-1]=3", ("layers", -1), "=", 3),
        ("layers.-1=3", ("layers", "-1"), "=", 3),
        ('names["a=b.c"][0].d=3', ("names", "a=b.c", 0, "d"), "=", 3),
        ("names['it\\'s']=3", ("names", "it's"), "=", 3),
        ("[0].x=3", (0, "x"), "=", 3),
    ],
)
def test_path_operator_and_value_are_told_apart(text, path, operator, value):
    found = parse_override(text)
    assert (found.path, found.operator, found.value) == (path, operator, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("None", None),
        ("~", None),
        ("true", True),
        ("False", False),
        ("3", 3),
        ("-3", -3),
        ("1_000", 1000),
        ("0x1F", 31),
        ("0b11", 3),
        ("0o17", 15),
        ("1e-4", 1e-4),
        ("1e5", 1e5),
        (".5", 0.5),
        ("2.", 2.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        (".inf", math.inf),
        ("yes", "yes"),
        ("2026-01-02", "2026-01-02"),
        ("1.2.3", "1.2.3"),
        ("__1", "__1"),
        ("0xZZ", "0xZZ"),
        ("a b", "a b"),
        ("", ""),
        ("a=b", "a=b"),
        ("https://x.y/z?a=1,2", "https://x.y/z?a=1,2"),
        ("@somebody", "@somebody"),
        ('"3"', "3"),
        ("'null'", "null"),
        (r'"a\n\u00e9\ud83d\ude00\x41\\"', "a\né😀A\\"),
        ("[]", []),
        ("[1, a b, 'c', ]", [1, "a b", "c"]),
        ("()", ()),
        ("(1,)", (1,)),
        ("(1, 2)", (1, 2)),
        ("(1)", 1),
        ("{}", {}),
        ("set()", set()),
        ("{1, a}", {1, "a"}),
        ("{a: 1, 'b c': [x], 3: null}", {"a": 1, "b c": ["x"], 3: None}),
        ("{u: http://x:80, v: pkg.mod:fn}", {"u": "http://x:80", "v": "pkg.mod:fn"}),
        ("[[1], {a: (1, 2)}]", [[1], {"a": (1, 2)}]),
        ("{{ params.x }}", "{{ params.x }}"),
        ("@conf.yaml", File("conf.yaml")),
        ("@dir/a b.toml:x.y", File("dir/a b.toml", "x.y")),
        ("[@a.json:k, @'b, c.yml']", [File("a.json", "k"), File("b, c.yml")]),
        ("adam()", Call("adam")),
        ("adam(0.1, betas=[0.9, 0.99])", Call("adam", (0.1,), (("betas", [0.9, 0.99]),))),
        (
            "pkg.mod:Cls.make(inner=my-name(x={a: 1}))",
            Call("pkg.mod:Cls.make", (), (("inner", Call("my-name", (), (("x", {"a": 1}),))),)),
        ),
    ],
)
def test_text_of_a_value_means_the_value_that_it_reads_as(text, value):
    found = parse_override(f"a={text}")
    assert repr(found.value) == repr(value)
    assert found.raw == text


def test_number_of_absurd_length_is_a_text():
    assert parse_override("a=" + "9" * 5000).value == "9" * 5000


def test_removal_may_be_written_in_front():
    assert parse_override("~a.b") == parse_override("a.b~=") == parse_override(" a.b ~= ")
    assert parse_override("a.b~=").node is None
    assert parse_override("a.b~=null").node == Word("null")


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("", "expected a path", 0),
        ("=3", "expected a path", 0),
        ("model.hidden", "not of the form path=value", 12),
        ("model..hidden=3", "expected a name", 6),
        (".model=3", "expected a name", 0),
        ("model.=3", "expected a name", 6),
        ("names[b.c]=3", "expected a number or a quoted name", 5),
        ("names[0]x=3", "expected a dot, a bracket or an operator", 8),
        ("~a=3", "write path~=value", 2),
        ("a=[1, 2", "expected ',' or ']', and the override ends", 7),
        ("a=[1 2}", "expected ',' or ']'", 6),
        ("a=[1,,2]", "expected a value", 5),
        ("a=[1, 2] x", "expected nothing more", 9),
        ("a={a: 1, a: 2}", "the key 'a' is given twice", 10),
        ("a={a: 1, b}", "expected a key", 10),
        ("a={a, b: 1}", "a set has no keys", 7),
        ("a={[1]}", "a set holds texts and numbers", 6),
        ("a={(1, 2): 3}", "expected a plain key", 9),
        ("a='x", "expected the closing '", 2),
        (r"a='\q'", r"\q is not an escape", 3),
        (r"a='\U00ffffff'", "no such character", 3),
        ("a=f(x=1", "expected ',' or ')'", 7),
        ("a=f(x=1, 2)", "expected a key", 10),
        ("a=f(x=1, x=2)", "the key 'x' is given twice", 9),
        ("a=[@x.txt]", "ends with .yaml", 3),
        ("a=" + "[" * (MAX_NESTING + 1), "nested deeper", MAX_NESTING + 2),
        ("a." * (MAX_KEYS + 1) + "b=1", "a path of more than", 2 * MAX_KEYS - 1),
    ],
)
def test_refusal_points_at_what_is_wrong(text, message, column):
    with pytest.raises(OverrideError) as caught:
        parse_override(text)
    assert message in caught.value.summary
    assert str(caught.value) == (f"{caught.value.summary}\n{excerpt(text, column)}" if text else caught.value.summary)


def test_caret_stands_below_its_column_in_long_texts_too():
    text = "a=" + "x" * 300 + "!" + "y" * 300
    shown, caret = excerpt(text, 302).splitlines()
    assert shown[caret.index("^")] == "!"
    assert len(shown) < 100
    shown, caret = excerpt("a=\n\t!", 4).splitlines()
    assert shown[caret.index("^")] == "!"


def test_text_beyond_the_limit_and_what_is_no_text_are_refused():
    with pytest.raises(OverrideError, match="the limit is"):
        parse_override("a=" + "x" * MAX_TEXT)
    with pytest.raises(OverrideError, match="not int"):
        parse_override(3)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.sets(st.text(max_size=4) | st.integers(), max_size=3)
    ),
    max_leaves=10,
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True)
nodes = st.recursive(
    names.map(Word) | st.text(max_size=6).map(Quoted) | names.map(lambda name: File(f"{name}.yaml", "k")),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: Items("list", tuple(items)))
        | st.dictionaries(names.map(Word), inner, max_size=3).map(lambda pairs: Pairs(tuple(pairs.items())))
        | st.builds(
            lambda name, args, kwargs: Call(name, tuple(args), tuple(kwargs.items())),
            names.map(lambda name: f"pkg.{name}:Make"),
            st.lists(inner, max_size=2),
            st.dictionaries(names, inner, max_size=2),
        )
    ),
    max_leaves=8,
)
paths = st.lists(st.text(min_size=1, max_size=6) | st.integers(-99, 99), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(paths, st.sampled_from(OPERATORS), plain)
@example(["a"], "=", "{{ x }}")
@example(["~", " ", "a-"], "=", "@x.yaml")
def test_plain_values_are_read_as_they_were_written(path, operator, value):
    found = parse_override(format_override(path, operator, value))
    assert (found.path, found.operator, found.value) == (tuple(path), operator, value)
    assert repr(found.value) == repr(value) or isinstance(value, (set, dict, list, tuple))


@settings(max_examples=150, deadline=None)
@given(paths, nodes)
def test_nodes_are_read_as_they_were_written(path, node):
    found = parse_override(format_override(path, "=", node))
    assert (found.path, found.node) == (tuple(path), node)
    assert parse_path(found.place) == found.path


@settings(max_examples=400, deadline=None)
@given(
    st.text(max_size=40)
    | st.text(alphabet="ab.=[]{}()'\"@:,~+-*/|01 \\ux#\n", max_size=40)
    | st.builds(
        lambda text, at, extra: text[: at % (len(text) + 1)] + extra + text[at % (len(text) + 1) + 1 :],
        st.builds(lambda path, node: format_override(path, "=", node), paths, nodes),
        st.integers(0, 200),
        st.text(max_size=2),
    )
)
def test_any_text_is_read_or_refused_and_what_is_read_comes_back(text):
    try:
        found = parse_override(text)
    except OverrideError as error:
        found, refusal = None, error
    if found is None:
        _, *place = refusal.message.split("\n")
        assert not place or (len(place) == 2 and place[1].strip() == "^" and place[1].index("^") <= len(place[0]))
        return
    again = parse_override(format_override(found.path, found.operator, found.node))
    assert again == found
    if found.node is not None:
        assert repr(again.value) == repr(found.value) or isinstance(found.value, (set, list, dict, tuple, Call))


class Size(enum.Enum):
    BIG = 1


def test_values_of_other_types_are_written_as_texts_that_annotations_turn_back():
    assert format_value({"p": pathlib.PurePosixPath("/a b"), "d": datetime.date(2026, 1, 2), "e": Size.BIG}) == (
        '{p: "/a b", d: "2026-01-02", e: BIG}'
    )
    for value in (object(), {(1, 2): 3}, {frozenset()}, 1 << 5000, b"x"):
        with pytest.raises(OverrideError, match="cannot be written"):
            format_value(value)
    deep = []
    deep.append(deep)
    with pytest.raises(OverrideError, match="nests deeper"):
        format_value(deep)


@pytest.mark.parametrize(
    ("operator", "old", "new", "result"),
    [
        ("=", 1, "x", "x"),
        ("+=", 1, 0.5, 1.5),
        ("-=", 3, 1, 2),
        ("*=", 3, 2, 6),
        ("/=", 6, 2, 3),
        ("/=", 1, 2, 0.5),
        ("+=", "a", "b", "ab"),
        ("+=", [1], [2, 3], [1, 2, 3]),
        ("+=", [1], 2, [1, 2]),
        ("+=", (1,), [2], (1, 2)),
        ("+=", {1}, [2], {1, 2}),
        ("|=", {1}, {2}, {1, 2}),
        ("-=", {1, 2}, 2, {1}),
        ("|=", {"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ("~=", [1, 2, 1], 1, [2]),
        ("~=", (1, 2, 3), [1, 3], (2,)),
        ("~=", {1, 2}, 2, {1}),
        ("~=", {"a": 1, 3: 2}, ["a", "3"], {}),
        ("~=", [1, True], True, [1]),
    ],
)
def test_operator_combines_the_old_value_with_the_given_one(operator, old, new, result):
    found = combine(operator, old, new)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    ("operator", "old", "new", "message"),
    [
        ("+=", None, 1, "no value is set yet"),
        ("+=", 1, "x", r"\+= cannot be used with a value of type int and a value of type str"),
        ("+=", True, 1, "cannot be used with"),
        ("-=", [1], [1], "~= removes from a list"),
        ("*=", "a", 3, "it multiplies numbers"),
        ("/=", 1, 0, "division by zero|zero"),
        ("*=", 1 << 3000, 1 << 3000, "more than 4096 bits"),
        ("/=", 1 << 3000, 3, "too large|OverflowError"),
        ("|=", [1], [2], "it merges dicts"),
        ("+=", {1}, {"a": 1}, "cannot be in a set"),
        ("~=", [1], 2, "the value 2 is not there; values: 1"),
        ("~=", {"a": 1}, "b", "the key 'b' is not there; keys: 'a'"),
        ("~=", 3, 3, "~= with a value cannot be used with"),
    ],
)
def test_operator_that_does_not_fit_says_what_it_is_for(operator, old, new, message):
    with pytest.raises(OverrideError, match=message):
        combine(operator, old, new)
