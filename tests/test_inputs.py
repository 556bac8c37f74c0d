"""Reading what users write: quantities, YAML and its traps, and the line for every kind of mistake."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AllowInfNan, Field

from nas.inputs import (
    MAX_FILE_BYTES,
    Config,
    InputError,
    Quantity,
    checked,
    choices,
    parse_value,
    parse_yaml,
    quantity,
    read_yaml,
    refuse,
)

# Quantities


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("0.363M", 363_000),
        ("30k", 30_000),
        ("1.5G", 1.5e9),
        (" 20M ", 2e7),
        ("7", 7),
        ("1e3", 1000),
        ("2.5E+6", 2.5e6),
        ("1e3k", 1e6),
        (2e7, 2e7),
        (1, 1),
        (0.5, 0.5),
    ],
)
def test_quantity(value: object, number: float) -> None:
    assert quantity(value) == number


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "M",
            "-3k",
            "3 k",
            "3m",
            "3K",
            "3kk",
            "1,000",
            "0x10",
            "1e999",
            "0",
            "0k",
            "nan",
            "inf",
            "1e-3",
            "٣",
            "3\n4",
        ),
        *(0, -1, math.nan, math.inf, 10**400, -(10**400), True, None, [3], {"params": 3}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_no_quantity(value: object) -> None:
    with pytest.raises(ValueError, match=r"^a positive number, or one with a suffix k, M or G such as 0\.363M$"):
        quantity(value)


@given(st.integers(1, 10**9), st.sampled_from(["k", "M", "G"]))
def test_a_suffix_multiplies(number: int, suffix: str) -> None:
    assert quantity(f"{number}{suffix}") == number * {"k": 10**3, "M": 10**6, "G": 10**9}[suffix]


# The line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("mbcnv", "'mbcnv'"),
        ("a\nb\0", "'a\\nb\\x00'"),
        (None, "None"),
        (10**12, "1000000000000"),
        (16**2000, "a whole number of 8001 bits"),
        (-(16**2000), "a whole number of 8001 bits"),
        ([1, [2, [3, [4, [5]]]]], "[1, [2, [3, [...]]]]"),
        ({"a": {"b": 1}}, "{'a': {'b': 1}}"),
    ],
)
def test_the_line_shows_the_value(value: object, shown: str) -> None:
    assert str(refuse("here", value, "there")) == f"here is {shown}, but must be there"


@given(st.recursive(st.none() | st.text() | st.integers() | st.floats(), lambda x: st.lists(x) | st.tuples(x, x)))
def test_the_line_is_one_short_line(value: object) -> None:
    line = str(refuse("here", value, "there"))
    assert len(line.splitlines()) == 1 and len(line) <= len("here is , but must be there") + 80


def test_a_value_behind_many_aliases_is_shown_in_no_time() -> None:
    bomb: list[Any] = [1]
    for _ in range(40):
        bomb = [bomb] * 10
    start = time.perf_counter()
    refuse("here", bomb, "there")
    assert time.perf_counter() - start < 1


def test_choices() -> None:
    assert choices({"b": 1, "a": 2}) == "one of: a, b"


# YAML


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2024-01-01", "2024-01-01"),
        ("2024-99-99", "2024-99-99"),
        ("2024-01-01 10:00:00", "2024-01-01 10:00:00"),
        ("0.363M", "0.363M"),
        ("1e3", "1e3"),
        ("5e-4", "5e-4"),
        ("1_000", 1000),
        ("no", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("[1, a]", [1, "a"]),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{a: &x {k: 1, l: 2}, b: {<<: *x, k: 3}}", {"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}),
    ],
)
def test_parse_value(text: str, value: object) -> None:
    assert parse_value(text, "here") == value


def aliases(levels: int) -> str:
    return "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, levels))


TOO_MANY = "here: has more than 100000 values, those behind aliases counted each time"
BAD_YAML = [
    ("", "here: is empty, but must be a mapping of names to values"),
    ("# a comment", "here: is empty, but must be a mapping of names to values"),
    ("words", "here is 'words', but must be a mapping of names to values"),
    ("[1]", "here is [1], but must be a mapping of names to values"),
    ("1: 2", "here: a key is 1, but must be a name"),
    ("yes: 2", "here: a key is True, but must be a name"),
    ("a: [", "here, line 1: is not valid YAML: expected the node content, but found '<stream end>'"),
    ("a: 1\nb: {c: 1, c: 2}", "here, line 2: is not valid YAML: key 'c' is repeated"),
    ("a:\n  1: x\n  1.0: y", "here, line 3: is not valid YAML: key 1.0 is repeated"),
    ("? {a: 1}\n: 2", "here, line 1: is not valid YAML: key {'a': 1} is not a name"),
    ("? !!binary aGk=\n: 2", "here, line 1: is not valid YAML: key b'hi' is not a name"),
    ("a: *b", "here, line 1: is not valid YAML: found undefined alias 'b'"),
    ("a: 1\n---\nb: 2", "here, line 2: is not valid YAML: but found another document"),
    ("a: \x00", "here: is not valid YAML: unacceptable character #x0000: special characters are not allowed"),
    ("a: \ud800", "here: is not valid YAML: unacceptable character #xd800: special characters are not allowed"),
    ("<<: 3", "here, line 1: is not valid YAML: expected a mapping or list of mappings for merging, but found scalar"),
    ("a: !!int x", "here: is not valid YAML: invalid literal for int() with base 10: 'x'"),
    ("a: &a [*a]", TOO_MANY),
    ("a: &a {b: *a}", TOO_MANY),
    (aliases(9), TOO_MANY),
    ("a: " + "[" * 600 + "]" * 600, "here: nests too deeply"),
    ("{a: " * 600 + "1" + "}" * 600, "here: nests too deeply"),
    ("a: " + "[" * 101 + "]" * 101, "here: nests too deeply"),
]


@pytest.mark.parametrize(("text", "line"), BAD_YAML, ids=[line[6:50] for _, line in BAD_YAML])
def test_what_is_no_mapping(text: str, line: str) -> None:
    with pytest.raises(InputError) as error:
        parse_yaml(text, "here")
    assert str(error.value) == line


def test_unknown_tags_are_never_executed() -> None:
    with pytest.raises(InputError, match="line 1: is not valid YAML: could not determine a constructor for the tag"):
        parse_yaml("a: !!python/object/apply:os.system ['false']", "here")


def test_an_integer_too_long_to_read() -> None:
    with pytest.raises(InputError, match="here: is not valid YAML: Exceeds the limit"):
        parse_yaml("a: " + "9" * 5000, "here")


def test_moderate_aliases_are_fine() -> None:
    assert parse_yaml(aliases(5), "here")["a4"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"\xff", "is not UTF-8 text"),
        (b"#" * (MAX_FILE_BYTES + 1), "is too large: it must have at most 1000000 bytes"),
    ],
)
def test_what_is_no_text(content: bytes, line: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(InputError) as error:
        read_yaml(tmp_path / "x.yaml")
    assert str(error.value) == f"{tmp_path}/x.yaml: {line}"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("nowhere.yaml", "No such file or directory"), (".", "Is a directory"), ("a\0b", "embedded null byte")],
)
def test_what_cannot_be_read(path: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        read_yaml(path)
    assert str(error.value) == f"{path}: cannot be read: {reason}"


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(tmp_path / "x.yaml") == {"a": 1}


# Checked values


class Inner(Config):
    size: Annotated[int, Ge(1), Le(9)]
    kind: Literal["a", "b"] = "a"


class Outer(Config):
    text: str = ""
    share: Annotated[float, Gt(0), Lt(1), AllowInfNan(False)] = 0.5
    flag: bool = False
    amount: Quantity = 1.0
    names: Annotated[list[str], Field(min_length=1)] = ["x"]
    limits: dict[str, Quantity] = {}
    free: dict[str, Any] = {}
    inner: Inner | None = None
    several: list[Inner] = []
    either: int | bool | None = None
    mixed: list[Annotated[int, Ge(1)] | Inner] = []


QUANTITY = "a positive number, or one with a suffix k, M or G such as 0.363M"
KEYS = "amount, either, flag, free, inner, limits, mixed, names, several, share, text"
MISTAKES: list[tuple[object, str]] = [
    (3, f"f is 3, but must be a mapping with the keys: {KEYS}"),
    (None, f"f is None, but must be a mapping with the keys: {KEYS}"),
    ({"colour": 1}, f"f: colour is not known; the keys here are: {KEYS}"),
    ({3: 1}, "f[3] is 3, but must be a name"),
    ({"text": 3}, "f: text is 3, but must be a valid string"),
    ({"text": None}, "f: text is None, but must be a valid string"),
    ({"text": b"x"}, "f: text is b'x', but must be a valid string"),
    ({"share": 0}, "f: share is 0, but must be greater than 0"),
    ({"share": 1.0}, "f: share is 1.0, but must be less than 1"),
    ({"share": "0.5"}, "f: share is '0.5', but must be a valid number"),
    ({"share": True}, "f: share is True, but must be a valid number"),
    ({"share": math.nan}, "f: share is nan, but must be a finite number"),
    ({"share": 10**400}, "f: share is a whole number of 1329 bits, but must be a valid number"),
    ({"flag": 1}, "f: flag is 1, but must be true or false"),
    ({"flag": "yes"}, "f: flag is 'yes', but must be true or false"),
    ({"amount": "3q"}, f"f: amount is '3q', but must be {QUANTITY}"),
    ({"names": []}, "f: names is [], but must be a list of at least 1"),
    ({"names": "x"}, "f: names is 'x', but must be a valid list"),
    ({"names": ["x", 3]}, "f: names[1] is 3, but must be a valid string"),
    ({"limits": None}, "f: limits is None, but must be a mapping"),
    ({"limits": {3: 1}}, "f: limits[3] is 3, but must be a valid string"),
    ({"limits": {"params": 0}}, f"f: limits.params is 0, but must be {QUANTITY}"),
    ({"inner": 3}, "f: inner is 3, but must be a mapping with the keys: kind, size"),
    ({"inner": {}}, "f: inner.size is missing"),
    ({"inner": {"sise": 3}}, "f: inner.sise is not known; the keys here are: kind, size"),
    ({"inner": {"size": 10}}, "f: inner.size is 10, but must be less than or equal to 9"),
    ({"inner": {"size": 2.0}}, "f: inner.size is 2.0, but must be a valid integer"),
    ({"inner": {"size": 1, "kind": "c"}}, "f: inner.kind is 'c', but must be one of: a, b"),
    ({"inner": {"size": 1, "kind": ["a"]}}, "f: inner.kind is ['a'], but must be one of: a, b"),
    ({"several": [{"size": 1}, {}]}, "f: several[1].size is missing"),
    ({"several": [{"size": 1, "x": 1}]}, "f: several[0].x is not known; the keys here are: kind, size"),
    ({"either": "x"}, "f: either is 'x', but must be a valid integer or true or false"),
    ({"mixed": [0]}, "f: mixed[0] is 0, but must be greater than or equal to 1 or a mapping with the keys: kind, size"),
    ({"mixed": ["x"]}, "f: mixed[0] is 'x', but must be a valid integer or a mapping with the keys: kind, size"),
    ({"mixed": [{"x": 1}]}, "f: mixed[0].x is not known; the keys here are: kind, size"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "line"), MISTAKES, ids=[line[:60] for _, line in MISTAKES])
def test_the_line_of_every_kind_of_mistake(value: object, line: str) -> None:
    with pytest.raises(InputError) as error:
        checked(Outer, value, "f")
    assert str(error.value) == line


@pytest.mark.parametrize(
    ("kind", "value", "line"),
    [
        (Annotated[int, Ge(1)], 0, "f: stem.c is 0, but must be greater than or equal to 1"),
        (bool | Literal["up"], "down", "f: stem.c is 'down', but must be true or false or one of: up"),
        (bool | int | float | str, None, "f: stem.c is None, but must be true or false or a valid integer or a valid "),
        (list[int], [1, "x"], "f: stem.c: [1] is 'x', but must be a valid integer"),
    ],
)
def test_the_line_of_an_annotation(kind: Any, value: object, line: str) -> None:
    with pytest.raises(InputError) as error:
        checked(kind, value, "f: stem.c")
    assert str(error.value).replace("stem.c[", "stem.c: [").startswith(line)


def test_what_is_right_comes_back_as_it_is() -> None:
    assert checked(Annotated[int, Ge(1)], 3, "f") == 3
    outer = checked(Outer, {"share": 0.5, "amount": "30k", "inner": {"size": 3}, "mixed": [2, {"size": 1}]}, "f")
    assert (outer.amount, outer.inner, outer.mixed) == (30_000, Inner(size=3), [2, Inner(size=1)])
    with pytest.raises(ValueError, match="frozen"):
        outer.share = 0.3
