"""Spaces: against brute force on random small ones, the files of this repository, and bad files."""

from __future__ import annotations

import itertools
import json
import math
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import pytest
import torch
import yaml
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from torchvision.models._utils import _make_divisible

from nas.architecture import Architecture, Stage, Value
from nas.blocks import defaults_of
from nas.costs import cost
from nas.inputs import InputError
from nas.network import build
from nas.rows import ABSENT, canonical, scaled
from nas.space import Params, Space

SPACES = Path(__file__).parents[1] / "search_spaces"


# --- random small spaces, and what is in them by brute force


def some(*values: Any) -> st.SearchStrategy[Any]:
    """One of the values, or (mostly) a list of two."""
    two = st.sampled_from([list(pair) for pair in itertools.permutations(values, 2)])
    return st.one_of(st.sampled_from(values), st.just([values[0]]), two, two, two)


@st.composite
def mappings(draw: st.DrawFn, shared: list[str], widths: bool) -> dict[str, Any]:
    """One stage. Groups sometimes do not divide, CSE sometimes has too few channels, shuffle sometimes too many."""
    block = draw(
        st.sampled_from(["separable", "bottleneck", "cse", "shuffle", "identity", "conv", ["separable", "bottleneck"]])
    )
    data: dict[str, Any] = {"block": block, "c": draw(some(4, 6, 8, 12))}
    if draw(st.booleans()):
        data["n"] = draw(some(0, 1, 2))
    if draw(st.booleans()):
        data["s"] = draw(some(1, 2))
    if "bottleneck" in block or block == "cse":
        data["t"] = draw(some(1, 2, 1.5))
    if block in ("bottleneck", "cse", "shuffle", "conv"):
        data["groups"] = {"by": "g"} if "g" in shared and draw(st.booleans()) else draw(some(1, 2, 3))
    if block in ("bottleneck", "shuffle") and draw(st.booleans()):
        data["shuffle"] = [True, False]
    if block == "separable" and "g" in shared and draw(st.booleans()):
        data["k"] = {"by": "g", "table": {1: 3, 2: draw(st.sampled_from([3, 5]))}}
    if widths and draw(st.booleans()):
        data["scale"] = draw(st.sampled_from([True, False, "up"]))
    return data


@st.composite
def dicts(draw: st.DrawFn) -> dict[str, Any]:
    data: dict[str, Any] = {"in_channels": 2, "classes": 3, "divisor": 4}
    shared = []
    if draw(st.booleans()):
        data["choices"] = {"g": [1, 2]}
        shared.append("g")
    data["resolution"] = draw(some(4, 5))
    if shared and draw(st.booleans()):
        data["resolution"] = {"by": "g", "table": {1: 4, 2: draw(st.sampled_from([4, 8]))}}
    widths = draw(st.booleans())
    if widths:
        data["width"] = draw(some(0.5, 1, 2))
    if draw(st.booleans()):
        data["defaults"] = {"activation": draw(some("relu", "relu6")), "k": draw(st.sampled_from([3, 5]))}
    data["stem"] = {"block": "conv", "c": draw(some(4, 8))}
    if shared and isinstance(data.get("width"), list) and draw(st.booleans()):
        c = st.sampled_from([4, 6, 8])
        data["stem"]["c"] = {"by": ["g", "width"], "table": {g: {w: draw(c) for w in data["width"]} for g in (1, 2)}}
    rows = st.one_of(mappings(shared, widths), st.lists(mappings(shared, widths), min_size=1, max_size=2))
    data["stages"] = draw(st.lists(rows, min_size=1, max_size=2))
    data["head"] = [{"block": "conv", "k": 1, "c": 8, "n": [0, 1]}] if draw(st.booleans()) else []
    data["head"].append({"block": "classifier"})
    return data


Named = dict[Architecture, list[Params]]


def brute_force(space: Space) -> Named:
    """All members with all params that name each: every answer to every choice, needed or not, is tried."""
    found: Named = {}
    for values in itertools.product(*space.choices.values()):
        given_ = dict(zip(space.choices, values, strict=True))
        asked: Params = {}

        def ask(name: str, values: tuple[Value, ...], given_: Params = given_, asked: Params = asked) -> Value:
            assert name not in asked and values == space.choices[name]
            asked[name] = given_[name]
            return asked[name]

        architecture = space.form(ask)
        if space.problem(architecture) is None:
            names = found.setdefault(architecture, [])
            if asked not in names:
                names.append(asked)
    return found


@st.composite
def spaces(draw: st.DrawFn, most: int = 600) -> tuple[Space, Named]:
    try:
        space = Space.from_dict(draw(dicts()))
    except InputError:
        reject()  # it has no member, see test_a_space_is_refused_as_empty_only_if_it_is
    assume(math.prod(map(len, space.choices.values())) <= most)
    return space, brute_force(space)


@settings(max_examples=30)
@given(spaces())
def test_size_enumeration_and_brute_force_agree(pair: tuple[Space, Named]) -> None:
    space, members = pair
    found = list(space.enumerate())
    assert space.size == len(found) == len(set(found)) == len(members)
    assert set(found) == set(members)


@settings(max_examples=30)
@given(dicts())
def test_a_space_is_refused_as_empty_only_if_it_is(data: dict[str, Any]) -> None:
    try:
        Space.from_dict(data)
    except InputError:
        with mock.patch.object(Space, "size", 1):  # so that it is read all the same
            space = Space.from_dict(data)
        assume(math.prod(map(len, space.choices.values())) <= 600)
        assert not brute_force(space)


@settings(max_examples=15)
@given(spaces(), st.data())
def test_a_problem_is_what_keeps_a_network_from_being_built(pair: tuple[Space, Named], data: st.DataObject) -> None:
    space, _ = pair
    for _ in range(3):
        architecture = space.form(lambda name, values: data.draw(st.sampled_from(values), label=name))
        with torch.device("meta"):
            if space.problem(architecture) is None:
                build(architecture)
            else:
                with pytest.raises(InputError):
                    build(architecture)


@settings(max_examples=30)
@given(spaces(), st.integers(0, 2**32))
def test_samples_encode_and_decode(pair: tuple[Space, Named], seed: int) -> None:
    space, members = pair
    rng, again = random.Random(seed), random.Random(seed)
    for _ in range(5):
        architecture = space.sample(rng)
        assert architecture in members and space.sample(again) == architecture
        assert all(canonical(stage) == stage for stage in architecture.stages)
        params = space.encode(architecture)
        assert params in members[architecture] and space.decode(params) == architecture
        assert space.decode(json.loads(json.dumps(params))) == architecture


@settings(max_examples=30)
@given(spaces(), st.data())
def test_contains(pair: tuple[Space, Named], data: st.DataObject) -> None:
    space, members = pair
    architecture = data.draw(st.sampled_from(sorted(members, key=str)))
    assert space.contains(architecture)
    # Written out in full, with the defaults and the options that make no difference, it is the same.
    full = [
        replace(stage, options=tuple(sorted(({**defaults_of(stage.block), **dict(stage.options)}).items())))
        for stage in architecture.stages
    ]
    assert space.contains(replace(architecture, stages=tuple(full)))
    place = data.draw(st.integers(0, len(full) - 1))
    stage = architecture.stages[place]
    changed = data.draw(
        st.sampled_from(
            [replace(stage, c=stage.c + 4), replace(stage, n=stage.n + 1), replace(stage, s=3 - stage.s % 2)]
        )
    )
    others = [
        replace(architecture, stages=(*architecture.stages[:place], changed, *architecture.stages[place + 1 :])),
        replace(architecture, resolution=9 - architecture.resolution),
        replace(architecture, in_channels=3),
        replace(architecture, stages=architecture.stages[1:]),
        replace(architecture, stages=(*architecture.stages, ABSENT)),
    ]
    for other in others:
        same = replace(other, stages=tuple(ABSENT if stage.n == 0 else stage for stage in other.stages))
        assert space.contains(other) == (same in members)


@settings(max_examples=30)
@given(spaces(most=150))
def test_neighbours_differ_in_one_choice(pair: tuple[Space, Named]) -> None:
    space, members = pair

    def differ_in_one(one: Params, other: Params) -> bool:
        return sum(one[name] != other[name] for name in one.keys() & other.keys()) == 1

    found = {member: list(space.neighbours(member)) for member in members}
    for member, neighbours in found.items():
        assert len(neighbours) == len(set(neighbours)) and member not in neighbours
        expected = {
            other
            for other in members
            if other != member and any(differ_in_one(p, q) for p in members[member] for q in members[other])
        }
        assert set(neighbours) == expected
        assert all(member in found[other] for other in neighbours)


@settings(max_examples=20)
@given(spaces(), st.integers(0, 2**31))
def test_optuna_proposes_members_or_problems(pair: tuple[Space, Named], seed: int) -> None:
    space, members = pair
    assert set(space.distributions) == set(space.choices)
    for name, distribution in space.distributions.items():
        for value in space.choices[name]:
            assert distribution.to_external_repr(distribution.to_internal_repr(value)) == value
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    for _ in range(3):
        trial = study.ask()
        architecture = space.suggest(trial)
        assert set(trial.params) <= set(space.distributions)
        if architecture in members:
            assert trial.params in members[architecture] and space.decode(trial.params) == architecture
        else:
            assert space.problem(architecture)
            with pytest.raises(InputError):
                space.decode(trial.params)


# --- one small space, by hand

SMALL: dict[str, Any] = {
    "name": "small",
    "resolution": 8,
    "width": [0.5, 1.0],
    "choices": {"act": ["relu", "hardswish", "silu"]},
    "stem": {"block": "conv", "c": 16, "scale": False},
    "stages": [
        [
            {"block": "separable", "c": [16, 32], "activation": {"by": "act"}},
            {"block": "bottleneck", "t": [1, 2], "c": 16, "n": [0, 1]},
        ]
    ],
    "head": {"block": "classifier"},
}


def test_a_space_counted_by_hand() -> None:
    space = Space.from_dict(SMALL)
    # separable: 8, 16 or 32 channels (16 at width 1 is 32 at 0.5), three activations. Bottleneck: 8 or 16 channels,
    # t 1 or 2, whatever the activation; or no stage at all.
    assert space.size == 3 * 3 + 2 * 2 + 1
    assert Counter(member.stages[1].block for member in space.enumerate()) == {
        "separable": 9,
        "bottleneck": 4,
        "identity": 1,
    }
    assert space.choices == {
        "act": ("relu", "hardswish", "silu"),
        "width": (0.5, 1),
        "stages[0]": (0, 1),
        "stages[0][0].c": (16, 32),
        "stages[0][1].n": (0, 1),
        "stages[0][1].t": (1, 2),
    }


def test_samples_are_uniform() -> None:
    space = Space.from_dict(SMALL)
    rng, draws = random.Random(0), 14 * 400
    counts = Counter(space.sample(rng) for _ in range(draws))
    assert len(counts) == space.size == 14
    chi_square = sum((count - 400) ** 2 / 400 for count in counts.values())
    # 13 degrees of freedom: mean 13, 0.1 % beyond 34.5.
    assert 2 < chi_square < 34.5


def test_the_draw_of_a_seed_is_stable() -> None:
    # Written down, as it must not hang on the order of a set (hashes of text differ from process to process).
    rng = random.Random(0)
    space = Space.from_dict(SMALL)
    assert [space.sample(rng).id for _ in range(3)] == ["a8938c8c7f28", "33cb1edd35e7", "0f1f499de50b"]


def test_the_neighbours_by_hand() -> None:
    space = Space.from_dict(SMALL)
    member = space.decode({"act": "silu", "width": 1.0, "stages[0]": 0, "stages[0][0].c": 16})
    assert member.stages[1] == Stage.of("separable", 16, activation="silu")
    # It is also width 0.5 of 32 channels, so: 8 or 32 channels, two other activations, and the other alternative
    # (absent, or t 1 or 2, at 16 or 8 channels).
    found = Counter(str(neighbour.stages[1]) for neighbour in space.neighbours(member))
    assert found == Counter(
        [
            "separable8 activation=silu",
            "separable32 activation=silu",
            "separable16",
            "separable16 activation=hardswish",
            "identity1x0",
            "bottleneck16 t1",
            "bottleneck16 t2",
            "bottleneck8 t1",
            "bottleneck8 t2",
        ]
    )


def test_params_that_name_nothing_are_refused() -> None:
    space = Space.from_dict(SMALL)
    params = {"act": "silu", "width": 1.0, "stages[0]": 0, "stages[0][0].c": 16}
    for change, line in (
        ({"stages[0][0].c": None}, "small: stages[0][0].c is None, but must be one of: 16, 32"),
        ({"width": 0.75}, "small: width is 0.75, but must be one of: 0.5, 1"),
        ({"stages[0]": 2}, "small: stages[0] is 2, but must be one of: 0, 1"),
    ):
        with pytest.raises(InputError) as caught:
            space.decode(params | change)
        assert str(caught.value) == line
    with pytest.raises(InputError, match=r"small: width is missing"):
        space.decode({name: value for name, value in params.items() if name != "width"})


def test_an_architecture_that_is_no_member_is_refused_with_the_reason() -> None:
    space = Space.from_dict(SMALL)
    stem, classifier = Stage.of("conv", 16), Stage.of("classifier", 10)

    def row(block: str, c: int, **options: Value) -> Architecture:
        return Architecture((stem, Stage.of(block, c, **options), classifier), 8)

    for architecture, line in (
        (row("separable", 24), "architecture is not in space small: its stages[0] (separable24) is no choice there"),
        (row("separable", 16, k=5), "architecture is not in space small: its stages[0] (separable16 k5) is no choice"),
        (
            row("separable", 16, k=4),
            "architecture cannot be built: stages[0]: separable.k is 4, but must be an odd number",
        ),
        (row("bottleneck", 16), "architecture cannot be built: stages[0]: bottleneck.t is missing"),
        (row("mbcnv", 16), "architecture cannot be built: stages[0]: block is 'mbcnv', but must be one of: "),
        (row("cse", 64, t=2), "architecture cannot be built: stages[0]: cse64: the 32 expanded channels are fewer"),
        (replace(row("separable", 16), resolution=9), "resolution is 9, but must be one of: 8 in space small"),
        (replace(row("separable", 16), in_channels=1), "in_channels is 1, but must be 3 in space small"),
        (Architecture((stem, classifier), 8), "architecture has 2 rows, space small 3"),
    ):
        assert not space.contains(architecture)
        with pytest.raises(InputError) as caught:
            space.encode(architecture)
        assert str(caught.value).startswith(line)
        with pytest.raises(InputError):
            list(space.neighbours(architecture))


def test_whole_numbers_in_equal_steps_are_ordered_for_optuna() -> None:
    data = SMALL | {
        "resolution": [8, 16, 24],
        "stages": [{"block": "separable", "c": [8, 24, 32], "n": [1, 2], "k": [5, 3], "activation": {"by": "act"}}],
    }
    kinds = Space.from_dict(data).distributions
    assert kinds == {
        "act": optuna.distributions.CategoricalDistribution(("relu", "hardswish", "silu")),
        "width": optuna.distributions.CategoricalDistribution((0.5, 1)),
        "resolution": optuna.distributions.IntDistribution(8, 24, step=8),
        "stages[0].c": optuna.distributions.CategoricalDistribution((8, 24, 32)),
        "stages[0].n": optuna.distributions.IntDistribution(1, 2),
        "stages[0].k": optuna.distributions.CategoricalDistribution((5, 3)),
    }
    alternatives = Space.from_dict(SMALL).distributions["stages[0]"]
    assert alternatives == optuna.distributions.CategoricalDistribution((0, 1))


def test_a_stage_of_which_only_the_first_layer_fits_is_no_member() -> None:
    # Two groups divide 8 and 16 channels in front of the first layer, but not 9 in front of the second.
    data = SMALL | {"width": 1, "stages": [{"block": "cse", "t": 2, "c": 9, "groups": 2, "n": [1, 2, 3]}]}
    space = Space.from_dict(data)
    assert {member.stages[1].n for member in space.enumerate()} == {1}
    with pytest.raises(InputError, match=r"small: stages\[0\]: cse9: groups=2 does not divide the 9 input channels"):
        space.decode({"act": "relu", "stages[0].n": 2})


def test_a_resolution_may_follow_a_choice_and_rows_the_resolution() -> None:
    data: dict[str, Any] = {
        "resolution": [8, 16],
        "stem": {"block": "conv", "c": 8, "s": {"by": "resolution", "table": {8: 1, 16: 2}}},
        "stages": [{"block": "separable", "c": 8}],
        "head": {"block": "classifier"},
    }
    assert {(m.resolution, m.stages[0].s) for m in Space.from_dict(data).enumerate()} == {(8, 1), (16, 2)}
    data |= {"choices": {"size": [1, 2]}, "resolution": {"by": "size", "table": {1: 8, 2: 16}}}
    data["stem"] = {"block": "conv", "c": {"by": "size", "table": {1: 4, 2: 8}}}
    assert {(m.resolution, m.stages[0].c) for m in Space.from_dict(data).enumerate()} == {(8, 4), (16, 8)}


def test_a_value_may_follow_several_choices_through_a_table_of_tables() -> None:
    table = {8: {"a": 1, "b": 2}, 16: {"a": 3, "b": 4}}
    data: dict[str, Any] = {
        "choices": {"x": ["a", "b"]},
        "resolution": [8, 16],
        "stem": {"block": "conv", "c": {"by": ["resolution", "x"], "table": table}},
        "stages": [{"block": "separable", "c": {"by": ["x"], "table": {"a": 8, "b": 4}}}],
        "head": {"block": "classifier"},
    }
    space = Space.from_dict(data)
    found = {(m.resolution, m.stages[0].c, m.stages[1].c) for m in space.enumerate()}
    assert found == {(8, 1, 8), (8, 2, 4), (16, 3, 8), (16, 4, 4)} and space.size == 4
    assert all(space.decode(space.encode(member)) == member for member in space.enumerate())


def test_the_data_say_channels_and_classes() -> None:
    space = Space.from_dict(SMALL, in_channels=1, classes=100)
    member = next(space.enumerate())
    assert member.in_channels == 1 and member.classes == 100
    with pytest.raises(InputError, match="classes is 0"):
        Space.from_dict(SMALL | {"classes": 0}, classes=100)


# --- width


@given(st.integers(1, 2000), st.floats(0.01, 10).filter(lambda x: x != 1), st.sampled_from([1, 4, 8, 16]))
def test_the_width_multiplier_rounds_as_torchvision_does(c: int, width: float, divisor: int) -> None:
    assert scaled(c, True, width, divisor) == _make_divisible(c * width, divisor)
    assert scaled(c, "up", width, divisor) == (_make_divisible(c * width, divisor) if width > 1 else c)
    assert scaled(c, False, width, divisor) == scaled(c, True, 1, divisor) == c


def test_published_widths() -> None:
    # MobileNetV2 at 0.35 and 1.4 (golden tables, section 2).
    channels = (32, 16, 24, 32, 64, 96, 160, 320)
    assert [scaled(c, True, 0.35, 8) for c in channels] == [16, 8, 8, 16, 24, 32, 56, 112]
    assert [scaled(c, True, 1.4, 8) for c in channels] == [48, 24, 32, 48, 88, 136, 224, 448]
    assert [scaled(1280, "up", width, 8) for width in (0.35, 1.0, 1.4)] == [1280, 1280, 1792]


# --- the files of this repository


@pytest.mark.parametrize("file", sorted(SPACES.rglob("*.yaml")), ids=lambda file: file.stem)
def test_every_space_in_the_repository_loads(file: Path) -> None:
    space = Space.load(file)
    assert space.name == file.stem
    assert file.read_text(encoding="utf-8").startswith("# "), "opens with what it describes"
    first = space.form(lambda _, values: values[0])
    if space.problem(first) is None:
        assert space.contains(first)
        assert Architecture.from_yaml(first.to_yaml()) == first


@pytest.fixture(scope="module")
def mobile_cifar() -> Space:
    return Space.load(SPACES / "mobile_cifar.yaml")


def test_mobile_cifar_is_large_and_holds_all_blocks(mobile_cifar: Space) -> None:
    assert mobile_cifar.size >= 10**9
    rng = random.Random(0)
    found = {stage.block for _ in range(50) for stage in mobile_cifar.sample(rng).stages}
    assert found >= {"separable", "bottleneck", "cse", "shuffle"}


def test_mobile_cifar_spans_two_orders_of_magnitude(mobile_cifar: Space) -> None:
    def smallest(name: str, values: tuple[Value, ...]) -> Value:
        if name in ("stages[3]", "stages[4]"):
            return 0  # bottleneck, which may have no layers
        return 1 if "." not in name and name != "activation" else min(values)  # separable

    def largest(name: str, values: tuple[Value, ...]) -> Value:
        if "." not in name:
            return values[0]  # bottleneck
        return min(values) if name.endswith(".groups") else max(values)

    small, large = mobile_cifar.form(smallest), mobile_cifar.form(largest)
    assert mobile_cifar.contains(small) and mobile_cifar.contains(large)
    assert cost(small, "params") <= 20_000 and cost(large, "params") >= 3_000_000


def test_members_of_mobile_cifar_differ_from_their_neighbours(mobile_cifar: Space) -> None:
    rng = random.Random(5)
    member = mobile_cifar.sample(rng)
    neighbours = list(mobile_cifar.neighbours(member))
    assert len(neighbours) == len(set(neighbours)) > 100
    assert all(mobile_cifar.contains(neighbour) for neighbour in rng.sample(neighbours, 20))
    assert member in mobile_cifar.neighbours(rng.choice(neighbours))


def test_sampling_takes_less_than_a_millisecond(mobile_cifar: Space) -> None:
    rng = random.Random(0)
    for _ in range(200):
        mobile_cifar.sample(rng)
    started = time.process_time()
    for _ in range(200):
        mobile_cifar.sample(rng)
    assert (time.process_time() - started) / 200 < 1e-3


def test_loading_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Space, "size", property(lambda _: pytest.fail("it counts")))
    assert Space.load(SPACES / "mobile_cifar.yaml").rows


# --- bad files


def text(stage: str = "{block: separable, c: 8}", **top: str) -> str:
    """A space file with one stage; `top` adds or replaces keys, None leaves one out."""
    keys = {"resolution": "8", "stem": "{block: conv, c: 8}", "stages": f"\n  - {stage}", "head": "{block: classifier}"}
    return "".join(f"{key}: {value}\n" for key, value in (keys | top).items() if value)


def tower(levels: int) -> str:
    """Ten aliases of ten aliases of ..."""
    lines = ["l0: &l0 [8, 8, 8, 8, 8, 8, 8, 8, 8, 8]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


BLOCK_LIST = "one of: bottleneck, classifier, conv, cse, fused_bottleneck, identity, maxpool, separable, shuffle"
TOP = "the keys here are: choices, classes, defaults, divisor, head, in_channels, name, resolution, stages, stem, width"
BAD_SPACES: list[tuple[str, str]] = [
    # rows
    (text("{block: mbcnv, c: 8}"), f"stages[0].block is 'mbcnv', but must be {BLOCK_LIST}"),
    (text("{block: [conv, mbcnv], c: 8}"), f"stages[0].block[1] is 'mbcnv', but must be {BLOCK_LIST}"),
    (text("{block: 7, c: 8}"), f"stages[0].block is 7, but must be {BLOCK_LIST}"),
    (text("{c: 8}"), "stages[0].block is missing; the blocks are: bottleneck, "),
    (text("{block: separable}"), "stages[0].c is missing"),
    (
        text("{block: separable, c: 8, m: 3}"),
        "stages[0].m is not known; the keys here are: activation, block, c, k, n, s, scale",
    ),
    (text('{block: separable, c: 8, "a\\nb": 3}'), "stages[0].'a\\nb' is not known; the keys here are: "),
    (text("{block: separable, c: 8, 3: 3}"), "stages[0].3 is not known; the keys here are: "),
    (text("{block: separable, c: 8, t: 3}"), "stages[0].t is not known; the keys here are: "),
    (text("separable"), "stages[0] is 'separable', but must be a mapping with block, c and the block's options, or "),
    (text("[]"), "stages[0] is [], but must be a mapping with block, c and the block's options, or a list of such"),
    (text("[{block: separable, c: 8}, 3]"), "stages[0][1] is 3, but must be a mapping with block, c and "),
    (text("[{block: separable, c: 8}, {block: conv, c: -1}]"), "stages[0][1].c is -1, but must be greater than or "),
    (text("{block: separable, c: []}"), "stages[0].c is [], but must be a value or a list of at least one value"),
    (text("{block: separable, c: [8, 8]}"), "stages[0].c is [8, 8], but must be a list without repetitions"),
    (text("{block: separable, c: [8, [16]]}"), "stages[0].c[1] is [16], but must be a valid integer"),
    (text("{block: separable, c: 0}"), "stages[0].c is 0, but must be greater than or equal to 1"),
    (text("{block: separable, c: 100001}"), "stages[0].c is 100001, but must be less than or equal to 100000"),
    (text("{block: separable, c: 8.5}"), "stages[0].c is 8.5, but must be a valid integer"),
    (text("{block: separable, c: many}"), "stages[0].c is 'many', but must be a valid integer"),
    (text("{block: separable, c: null}"), "stages[0].c is None, but must be a valid integer"),
    (text("{block: separable, c: 8, n: -1}"), "stages[0].n is -1, but must be greater than or equal to 0"),
    (text("{block: separable, c: 8, n: [1, 101]}"), "stages[0].n[1] is 101, but must be less than or equal to 100"),
    (text("{block: separable, c: 8, s: 5}"), "stages[0].s is 5, but must be less than or equal to 4"),
    (text("{block: separable, c: 8, k: 4}"), "stages[0].k is 4, but must be an odd number"),
    (text("{block: separable, c: 8, k: true}"), "stages[0].k is True, but must be a valid integer"),
    (text("{block: separable, c: 8, activation: gelu}"), "stages[0].activation is 'gelu', but must be one of: relu, "),
    (text("{block: separable, c: 8, scale: down}"), "stages[0].scale is 'down', but must be one of: True, False, up"),
    (text("{block: bottleneck, c: 8}"), "stages[0].t is missing: bottleneck needs it"),
    (text("{block: [separable, bottleneck], c: 8}"), "stages[0].t is missing: bottleneck needs it"),
    (text("{block: bottleneck, c: 8, t: 0}"), "stages[0].t is 0, but must be greater than 0"),
    (text("{block: bottleneck, c: 8, t: .inf}"), "stages[0].t is inf, but must be less than or equal to 100"),
    (text("{block: bottleneck, c: 8, t: .nan}"), "stages[0].t is nan, but must be "),
    (text("{block: shuffle, c: 16}"), "stages[0].groups is missing: shuffle needs it"),
    (
        text("{block: shuffle, c: 16, groups: 3}"),
        "has no member: stages[0]: shuffle16: groups=3 does not divide the 8 input channels",
    ),
    (
        text("{block: cse, c: [24, 32], t: 2}"),
        "has no member: stages[0]: cse24: the 16 expanded channels are fewer than the 24 output channels",
    ),
    (
        text("{block: bottleneck, t: [%s], c: [%s], k: [%s], n: [1, 2, 3]}")
        % tuple(", ".join(map(str, values)) for values in (range(1, 101), range(1, 101), range(1, 100, 2))),
        "stages[0] has 1.5e+06 combinations, but must have at most 1000000",
    ),
    # following a choice
    (
        text("{block: separable, c: {by: z}}"),
        "stages[0].c.by is 'z', but must be the name of a shared choice, and there is none here",
    ),
    (
        text("{block: separable, c: {by: z}}", choices="{y: [8, 16], x: [1, 2]}"),
        "stages[0].c.by is 'z', but must be one of: x, y",
    ),
    (text("{block: separable, c: {by: [1]}}", choices="{y: [8, 16]}"), "stages[0].c.by is [1], but must be one of: y"),
    (
        text("{block: separable, c: {by: [y, y]}}", choices="{y: [8, 16], z: [1, 2]}"),
        "stages[0].c.by is ['y', 'y'], but must be one of: y, z, or a list of these, each once",
    ),
    (text("{block: separable, c: {by: []}}", choices="{y: [8, 16]}"), "stages[0].c.by is [], but must be one of: y"),
    (
        text("{block: separable, c: {by: [y, z]}}", choices="{y: [8, 16], z: [1, 2]}"),
        "stages[0].c.table is None, but must be a mapping with a value for each of: 8, 16",
    ),
    (
        text("{block: separable, c: {by: [y, z], table: {8: {1: 2, 2: 4}, 16: 8}}}", choices="{y: [8, 16], z: [1, 2]}"),
        "stages[0].c.table.16 is 8, but must be a mapping with a value for each of: 1, 2",
    ),
    (
        text("{block: separable, c: {by: [y, z], table: {8: {1: 2, 2: k}}}}", choices="{y: [8], z: [1, 2]}"),
        "stages[0].c.table.8.2 is 'k', but must be a valid integer",
    ),
    (
        text("{block: separable, c: {table: {1: 2}}}"),
        "stages[0].c is {'table': {1: 2}}, but must be a value, a list of values, or {by: choice, table: {...}}",
    ),
    (
        text("{block: separable, c: {by: z, table: {1: 8}}}", choices="{z: [1, 2]}"),
        "stages[0].c.table is [1], but must be a mapping with a value for each of: 1, 2",
    ),
    (
        text("{block: separable, c: {by: z, table: {1: 8, 2: 8, 3: 8}}}", choices="{z: [1, 2]}"),
        "stages[0].c.table is [1, 2, 3], but must be a mapping with a value for each of: 1, 2",
    ),
    (
        text("{block: separable, c: {by: z, table: [8]}}", choices="{z: [1, 2]}"),
        "stages[0].c.table is [8], but must be a mapping with a value for each of: 1, 2",
    ),
    (
        text("{block: separable, c: {by: z, table: {1: 8, 2: x}}}", choices="{z: [1, 2]}"),
        "stages[0].c.table.2 is 'x', but must be a valid integer",
    ),
    (text("{block: separable, c: {by: z}}", choices="{z: [8, a]}"), "stages[0].c.table.a is 'a', but must be a valid "),
    # the classifier
    (text(head="{block: conv, c: 8}"), "head.block is 'conv', but must be classifier, as it is the last row"),
    (
        text(head="[{block: classifier}, {block: conv, c: 8}]"),
        "head[0].block is 'classifier', but must be another: only the last row can be the classifier",
    ),
    (
        text("{block: [separable, classifier]}"),
        "stages[0].block is 'classifier', but must be another: only the last row can be the classifier",
    ),
    (
        text(head="[[{block: classifier}, {block: classifier, dropout: 0.5}]]"),
        "head[0].block is 'classifier, classifier', but must be classifier, as it is the last row",
    ),
    (
        text(head="{block: classifier, c: 8}"),
        "head.c is not known; the keys here are: activation, bias, block, dropout, hidden, scale",
    ),
    (text(head="{block: classifier, dropout: 1}"), "head.dropout is 1, but must be less than 1"),
    # the top
    (text(clases="8"), f"clases is not known; {TOP}"),
    (text(**{'"a\\nb"': "8"}), f"'a\\nb' is not known; {TOP}"),
    (text(stages=""), "stages is missing"),
    (text(stages="[]"), "stages is [], but must be a list of rows"),
    (text(stages="{block: separable, c: 8}"), "stages is {'block': 'separable', 'c': 8}, but must be a list of rows"),
    (text(stem=""), "stem is missing"),
    (text(stem="[]"), "stem is [], but must be a list of rows or one row"),
    (text(head=""), "head is missing"),
    (text(resolution=""), "resolution is missing"),
    (text(resolution="0"), "resolution is 0, but must be greater than or equal to 1"),
    (text(resolution="[8, 5000]"), "resolution[1] is 5000, but must be less than or equal to 4096"),
    (text(resolution="big"), "resolution is 'big', but must be a valid integer"),
    (text(width="0"), "width is 0, but must be greater than 0"),
    (text(width="[0.5, wide]"), "width[1] is 'wide', but must be a valid number"),
    (text(width="11"), "width is 11, but must be less than or equal to 10"),
    (text(divisor="0"), "divisor is 0, but must be greater than or equal to 1"),
    (text(in_channels="2.5"), "in_channels is 2.5, but must be a valid integer"),
    (text(classes="many"), "classes is 'many', but must be a valid integer"),
    (text(name="3"), "name is 3, but must be a valid string"),
    (text(name='"a\\nb"'), "name is 'a\\nb', but must be at most 60 letters, digits and . _ + -"),
    (text(choices="3"), "choices is 3, but must be a mapping of names to lists"),
    (text(choices="{a-b: [1]}"), "choices: a name is 'a-b', but must be a word, and none of: choices, classes, "),
    (text(choices="{width: [1]}"), "choices: a name is 'width', but must be a word, and none of: choices, classes, "),
    (text(choices="{a: null}"), "choices.a is None, but must be a number, true, false or a word"),
    (text(choices='{a: ["x\\ny"]}'), "choices.a[0] is 'x\\ny', but must be a number, true, false or a word"),
    (text(choices="{a: [1, true]}"), "choices.a is [1, True], but must be a list without repetitions"),
    (text(choices="{a: {b: 1}}"), "choices.a is {'b': 1}, but must be a value, a list of values, or {by: choice, "),
    (text(defaults="[3]"), "defaults is [3], but must be a mapping of block options to values"),
    (
        text(defaults="{kk: 3}"),
        "defaults.kk is not known; the keys here are: activation, bias, cap, dense, dropout, ",
    ),
    (text(defaults="{k: 4}"), "defaults.k is 4, but must be an odd number"),
    (
        text(choices=str({f"x{i}": [1, 2, 3, 4, 5] for i in range(6)})),
        "x0, x1, x2, x3, x4, x5 have 1.56e+04 combinations, but must have at most 10000",
    ),
]
# What the reader of YAML says is its own; the line has the file in front.
BAD_YAML: list[tuple[str, str]] = [
    ("stages: [\n", "is not valid YAML: "),
    ("a: 1\n  b: 2\n", "is not valid YAML: "),
    ("- 1\n", "[1], but must be a mapping of names to values"),
    ("", "must be a mapping of names to values"),
    (text() + "resolution: 16\n", "key 'resolution' is repeated"),
    (text("{block: separable, c: 8, c: 16}"), "key 'c' is repeated"),
    (text() + "name: !!python/object/apply:os.system [true]\n", "is not valid YAML: could not determine a constructor"),
    (tower(3) + text(), "l0 is not known"),
    (tower(12) + text("*l11"), "has more than 100000 values"),
    ("[" * 600, "nests too deeply"),
    ("# " + "x" * 10**6 + "\n" + text(), "is too large: it must have at most 1000000 bytes"),
]


def refusal(content: str, file: Path) -> str:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        Space.load(file)
    line = str(caught.value)
    assert "\n" not in line and len(line) < len(str(file)) + 300
    return line


@pytest.mark.parametrize(("content", "expected"), BAD_SPACES, ids=[line for _, line in BAD_SPACES])
def test_a_bad_space_is_refused_in_one_line(content: str, expected: str, tmp_path: Path) -> None:
    assert refusal(content, tmp_path / "x.yaml").startswith(f"{tmp_path}/x.yaml: {expected}")


@pytest.mark.parametrize(("content", "expected"), BAD_YAML, ids=[line for _, line in BAD_YAML])
def test_bad_yaml_is_refused_in_one_line(content: str, expected: str, tmp_path: Path) -> None:
    line = refusal(content, tmp_path / "x.yaml")
    assert line.startswith(f"{tmp_path}/x.yaml") and expected in line


def test_the_base_of_the_bad_files_is_good() -> None:
    assert Space.from_dict(yaml.safe_load(text())).size == 1


def test_what_is_no_text_file_is_refused_in_one_line(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: caf\xe9".encode("latin-1"))
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \x00\x01")
    for file, expected in (
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (latin, "is not UTF-8 text"),
        (binary, "is not valid YAML: "),
    ):
        with pytest.raises(InputError) as caught:
            Space.load(file)
        assert str(caught.value).startswith(f"{file}: {expected}") and "\n" not in str(caught.value)


def test_a_study_is_no_space() -> None:
    with pytest.raises(InputError, match=r"quickstart\.yaml: is a study, not a space; its space is \.\./search"):
        Space.load(SPACES.parent / "studies" / "quickstart.yaml")
