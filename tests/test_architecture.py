"""Architectures: round trips, what the id looks through, the papers' tables, refusals in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.architecture import LIMITS, Architecture, Layer, Stage
from nas.inputs import InputError

MOBILENET_V2 = Architecture(
    (
        Stage.of("conv", 32, s=2, k=3),
        Stage.of("bottleneck", 16, t=1),
        *(
            Stage.of("bottleneck", c, n=n, s=s, t=6)
            for c, n, s in ((24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
        ),
        Stage.of("conv", 1280, k=1),
        Stage.of("classifier", 1000),
    ),
    224,
)

words = st.from_regex(r"[A-Za-z0-9_.+-]{1,12}", fullmatch=True)
values = st.one_of(
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    words,
    st.sampled_from(["yes", "no", "null", "1e3", "1_000", ".5", "0x1F", "2001-01-01", "+1", "-", ".inf"]),
)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda x: x not in {"block", "c", "n", "s"})
stages = st.builds(
    lambda block, c, n, s, options: Stage(block, c, n, s, tuple(sorted(options.items()))),
    st.sampled_from(["conv", "bottleneck", "identity", "separable"]),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 3),
    st.dictionaries(names, values, max_size=2),
)
architectures = st.builds(
    Architecture, st.lists(stages, min_size=1, max_size=4).map(tuple), st.integers(1, 64), st.integers(1, 5)
)


@settings(max_examples=60)
@given(architectures)
def test_round_trips_are_exact(architecture: Architecture) -> None:
    data = architecture.to_dict()
    copies = [
        Architecture.from_dict(data),
        Architecture.from_json(json.dumps(data)),
        Architecture.from_yaml(architecture.to_yaml()),
    ]
    for copy in copies:
        assert copy == architecture and hash(copy) == hash(architecture)
        assert copy.to_dict() == data and copy.id == architecture.id and copy.layers == architecture.layers
        for mine, others in zip(architecture.stages, copy.stages, strict=True):
            # 1 == True == 1.0, so equality alone would not see a changed type; 6.0 becomes 6 by design.
            for (_, value), (_, other) in zip(mine.options, others.options, strict=True):
                assert type(other) is (int if isinstance(value, float) and value.is_integer() else type(value))


def test_a_file_is_read_back_and_opens_with_the_id(tmp_path: Path) -> None:
    file = tmp_path / "network.yaml"
    file.write_text(MOBILENET_V2.to_yaml(), encoding="utf-8")
    assert Architecture.load(file) == MOBILENET_V2
    first, *rest = file.read_text(encoding="utf-8").splitlines()
    assert first == f"# architecture {MOBILENET_V2.id}"
    assert rest[:3] == ["in_channels: 3", "resolution: 224", "stages:"]
    assert rest[5] == "  - {block: bottleneck, c: 24, n: 2, s: 2, t: 6}"


def test_an_architecture_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        MOBILENET_V2.resolution = 32  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        MOBILENET_V2.stages[0].c = 32  # type: ignore[misc]


# --- layers


def test_the_first_layer_of_a_stage_has_its_stride_and_channels_are_handed_on() -> None:
    layers = Architecture((Stage.of("conv", 8, s=2, k=3), Stage.of("bottleneck", 12, n=3, s=2, t=6)), 9, 3).layers
    t6 = (("t", 6),)
    assert layers == (
        Layer("conv", 3, 8, 2, 9, (("k", 3),)),
        Layer("bottleneck", 8, 12, 2, 5, t6),
        Layer("bottleneck", 12, 12, 1, 3, t6),
        Layer("bottleneck", 12, 12, 1, 3, t6),
    )
    assert [layer.out_resolution for layer in layers] == [5, 3, 3, 3]


@settings(max_examples=40)
@given(architectures)
def test_layers_fit_together(architecture: Architecture) -> None:
    channels, resolution = architecture.in_channels, architecture.resolution
    for layer in architecture.layers:
        assert (layer.in_channels, layer.resolution) == (channels, resolution)
        channels, resolution = layer.out_channels, layer.out_resolution


# --- id


def id_of(*rows: Stage, resolution: int = 16, in_channels: int = 3) -> str:
    return Architecture(rows, resolution, in_channels).id


def test_the_id_is_short_and_stable() -> None:
    # Written down: the names of files and of resumed candidates hang on it.
    assert MOBILENET_V2.id == "b287dce140d2"
    assert re.fullmatch(r"[0-9a-f]{12}", MOBILENET_V2.id)


@settings(max_examples=40)
@given(architectures, st.data())
def test_row_cuts_make_no_difference(architecture: Architecture, data: st.DataObject) -> None:
    rows = []
    for stage in architecture.stages:
        cut = data.draw(st.integers(0, stage.n))
        # The first part has the stride; a part of no layers changes nothing, so it hands the stride on.
        rows += [replace(stage, n=cut), replace(stage, n=stage.n - cut, s=1 if cut else stage.s)]
    assert Architecture(tuple(rows), architecture.resolution, architecture.in_channels).id == architecture.id


@settings(max_examples=40)
@given(architectures, st.data())
def test_no_op_identities_make_no_difference(architecture: Architecture, data: st.DataObject) -> None:
    rows: list[Stage] = []
    channels = architecture.in_channels
    for stage in (*architecture.stages, None):
        rows += [Stage.of("identity", channels, n=data.draw(st.integers(0, 2)))]
        if stage is not None:
            rows.append(stage)
            channels = stage.c if stage.n else channels
    assert Architecture(tuple(rows), architecture.resolution, architecture.in_channels).id == architecture.id


@settings(max_examples=40)
@given(architectures, architectures)
def test_the_id_is_equal_if_and_only_if_the_layers_are(one: Architecture, other: Architecture) -> None:
    assert (one.id == other.id) == (one.layers == other.layers)


def test_everything_else_makes_a_difference() -> None:
    def row(**change: Any) -> Stage:
        return Stage.of(**{"block": "bottleneck", "c": 16, "n": 2, "s": 2, "t": 6, "k": 3, "shuffle": True, **change})

    ids = [
        id_of(row()),
        id_of(row(), resolution=17),
        id_of(row(), in_channels=1),
        id_of(row(block="cse")),
        id_of(row(c=24)),
        id_of(row(n=3)),
        id_of(row(s=1)),
        id_of(row(t=5)),
        id_of(row(t=5.5)),
        id_of(row(k=5)),
        id_of(row(shuffle=False)),
        id_of(row(groups=2)),
        id_of(row(n=1), row(n=1)),  # strides twice
        id_of(row(), Stage.of("identity", 16, s=2)),
        id_of(row(), Stage.of("identity", 24)),
        id_of(row(c=16), row(c=24)),
        id_of(row(c=24), row(c=16)),
    ]
    assert len(set(ids)) == len(ids)


def test_one_value_has_one_spelling() -> None:
    assert id_of(Stage.of("bottleneck", 8, t=6.0)) == id_of(Stage.of("bottleneck", 8, t=6))
    assert id_of(Stage("bottleneck", 8, 1, 1, (("t", 6.0),))) == id_of(Stage.of("bottleneck", 8, t=6))
    assert Architecture.from_yaml("{in_channels: 1, resolution: 8, stages: [{block: b, c: 1, t: 6.0}]}").to_dict()[
        "stages"
    ] == [{"block": "b", "c": 1, "n": 1, "s": 1, "t": 6}]


# --- for people


def test_the_table_has_the_form_of_the_papers() -> None:
    # Table 2 of arXiv 1801.04381, k and the average pooling aside.
    assert MOBILENET_V2.table().splitlines() == [
        "input       operator    t  c     n  s  k",
        "224^2 x 3   conv        -  32    1  2  3",
        "112^2 x 32  bottleneck  1  16    1  1  -",
        "112^2 x 16  bottleneck  6  24    2  2  -",
        "56^2 x 24   bottleneck  6  32    3  2  -",
        "28^2 x 32   bottleneck  6  64    4  2  -",
        "14^2 x 64   bottleneck  6  96    3  1  -",
        "14^2 x 96   bottleneck  6  160   3  2  -",
        "7^2 x 160   bottleneck  6  320   1  1  -",
        "7^2 x 320   conv        -  1280  1  1  1",
        "7^2 x 1280  classifier  -  1000  1  1  -",
    ]


def test_the_table_leaves_out_rows_that_are_not_there() -> None:
    rows = (Stage.of("conv", 8, n=0), Stage.of("shuffle", 9, s=2, groups=3, shuffle=False))
    assert Architecture(rows, 15).table().splitlines() == [
        "input     operator  t  c  n  s  groups  shuffle",
        "15^2 x 3  shuffle   -  9  1  2  3       false",
    ]


def test_the_short_form() -> None:
    rows = (
        Stage.of("conv", 8, n=0),
        Stage.of("bottleneck", 24, n=2, s=2, t=6, groups=2, shuffle=False),
        Stage.of("shuffle", 48, shuffle=True, activation="relu"),
    )
    assert str(Architecture(rows, 32)) == (
        "32px: bottleneck24x2/2 t6 groups=2 no-shuffle | shuffle48 activation=relu shuffle"
    )


# --- refusals


def with_stage(**change: Any) -> dict[str, Any]:
    return {"in_channels": 3, "resolution": 8, "stages": [{"block": "conv", "c": 8, **change}]}


BAD: list[tuple[object, str]] = [
    ([], "x is [], but must be a mapping with in_channels, resolution, stages"),
    (None, "x is None, but must be a mapping with in_channels, resolution, stages"),
    ({"resolution": 8, "stages": []}, "x: in_channels is missing"),
    ({"in_channels": 3, "stages": []}, "x: resolution is missing"),
    ({"in_channels": 3, "resolution": 8}, "x: stages is missing"),
    (with_stage() | {"stages": []}, "x: stages is [], but must be a list of stages"),
    (with_stage() | {"stages": {}}, "x: stages is {}, but must be a list of stages"),
    (with_stage() | {"stages": [3]}, "x: stages[0] is 3, but must be a mapping with block, c, n, s and "),
    (with_stage() | {"depth": 3}, "x: depth is not known; the keys here are: in_channels, resolution, stages"),
    (with_stage() | {"a\nb": 3}, "x: 'a\\nb' is not known; the keys here are: "),
    (with_stage() | {3: 3}, "x: 3 is not known; the keys here are: "),
    (with_stage() | {"resolution": 0}, "x: resolution is 0, but must be a whole number from 1 to 4096"),
    (with_stage() | {"resolution": 8.0}, "x: resolution is 8.0, but must be a whole number from 1 to 4096"),
    (with_stage() | {"resolution": True}, "x: resolution is True, but must be a whole number"),
    (with_stage() | {"resolution": "big"}, "x: resolution is 'big', but must be a whole number"),
    (with_stage() | {"in_channels": None}, "x: in_channels is None, but must be a whole number from 1 to 100000"),
    (with_stage(c=0), "x: stages[0].c is 0, but must be a whole number from 1 to 1000000"),
    (with_stage(n=-1), "x: stages[0].n is -1, but must be a whole number from 0 to 100"),
    (with_stage(n=10**9), "x: stages[0].n is 1000000000, but must be a whole number from 0 to 100"),
    (with_stage(s=0), "x: stages[0].s is 0, but must be a whole number from 1 to 4"),
    (with_stage(s="2"), "x: stages[0].s is '2', but must be a whole number from 1 to 4"),
    (with_stage(block=None), "x: stages[0].block is None, but must be the name of a block"),
    (with_stage(block="a\nb"), "x: stages[0].block is 'a\\nb', but must be the name of a block"),
    (with_stage() | {"stages": [{"c": 3}]}, "x: stages[0].block is missing"),
    (with_stage() | {"stages": [{"block": "conv"}]}, "x: stages[0].c is missing"),
    (with_stage(k=[3]), "x: stages[0].k is [3], but must be a number, true, false or a word"),
    (with_stage(k=None), "x: stages[0].k is None, but must be a number, true, false or a word"),
    (with_stage(k={}), "x: stages[0].k is {}, but must be a number, true, false or a word"),
    (with_stage(t=float("nan")), "x: stages[0].t is nan, but must be a number, true, false or a word"),
    (with_stage(t=float("inf")), "x: stages[0].t is inf, but must be a number, true, false or a word"),
    (with_stage(k="a\nb"), "x: stages[0].k is 'a\\nb', but must be a number, true, false or a word"),
    (with_stage(**{"K!": 3}), "x: stages[0]: a key is 'K!', but must be block, c, n, s or an option of the block"),
]


@pytest.mark.parametrize(("data", "line"), BAD, ids=[line for _, line in BAD])
def test_bad_data_is_refused_in_one_line(data: object, line: str) -> None:
    with pytest.raises(InputError) as caught:
        Architecture.from_dict(data, "x")
    assert str(caught.value).startswith(line)
    assert len(str(caught.value).splitlines()) == 1


def test_names_that_python_uses_are_options_like_others() -> None:
    data = with_stage(cls=1, self=2, options=3)
    assert Architecture.from_dict(data).stages[0].to_dict() == {**data["stages"][0], "n": 1, "s": 1}


@pytest.mark.parametrize(
    ("read", "text", "line"),
    [
        (Architecture.from_json, "{", "architecture: is not valid JSON: "),
        (Architecture.from_json, "", "architecture: is not valid JSON: "),
        (Architecture.from_json, "[" * 100_000, "architecture: is not valid JSON: "),
        (Architecture.from_json, "3", "architecture is 3, but must be a mapping with in_channels, resolution, stages"),
        (Architecture.from_yaml, "{", "architecture, line 1: is not valid YAML: "),
        (Architecture.from_yaml, "a: 1\na: 2", "architecture, line "),
        (Architecture.from_yaml, "", "architecture"),
        (Architecture.load, "/nowhere/a.yaml", "/nowhere/a.yaml: cannot be read: No such file or directory"),
    ],
)
def test_bad_text_is_refused_in_one_line(read: Callable[[str], Architecture], text: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert str(caught.value).startswith(line)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("key", LIMITS)
def test_the_limits_themselves_are_legal(key: str) -> None:
    for value in LIMITS[key]:
        data = with_stage()
        (data if key in data else data["stages"][0])[key] = value
        assert Architecture.from_dict(data).to_dict() == {**data, "stages": [{"n": 1, "s": 1, **data["stages"][0]}]}
