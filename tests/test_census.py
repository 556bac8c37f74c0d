"""What is said of all members of a space, against all of them one by one; and of a space too large for that."""

from __future__ import annotations

import math
import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_space import Named, spaces

from nas import blocks
from nas.architecture import Layer
from nas.blocks import BLOCKS, options_of
from nas.blocks.block import ACTIVATIONS
from nas.census import ledger
from nas.census.choices import used_ranges
from nas.census.feasible import Feasible, can_fit
from nas.census.graph import Graph
from nas.census.halves import Halves
from nas.census.ledger import WITHOUT_COST, TooManyLayers, layer_costs
from nas.census.maxima import Maxima, MaxTable
from nas.census.sums import SumTable
from nas.costs import COSTS, costs
from nas.inputs import InputError
from nas.space import Space
from nas.trace import trace_layer

SUMS = [name for name, cost in COSTS.items() if cost.combine == "sum"]
SHARES = [0, 0.05, 0.5, 0.95, 1]
names = st.sampled_from(list(COSTS))


def quantile(values: list[int], share: float) -> int:
    """The least value that this share of the values does not exceed."""
    return next(value for value in values if sum(x <= value for x in values) >= share * len(values))


def table(graph: Graph, name: str, limit: float, **settings_: Any) -> SumTable | MaxTable:
    return SumTable(graph, name, limit, **settings_) if name in SUMS else MaxTable(graph, name, limit)


@settings(max_examples=20)
@given(spaces(most=120), names, st.data())
def test_costs_counts_quantiles_and_extremes(pair: tuple[Space, Named], name: str, data: st.DataObject) -> None:
    space, members = pair
    graph = Graph(space)
    values = sorted(costs(member)[name] for member in members)
    for member in list(members)[:20]:
        assert graph.costs_of(member) == costs(member)
    for best, value in ((np.min, values[0]), (np.max, values[-1])):
        path = graph.extreme(name, best)
        assert graph.member(path) in members
        assert graph.costs(path) == costs(graph.member(path)) and graph.costs(path)[name] == value
    counted = Halves(graph, name) if name in SUMS else Maxima(graph, name)
    for limit in (values[0] - 1, *data.draw(st.lists(st.sampled_from(values), max_size=3)), values[-1] / 2, 1e30):
        assert counted.within(limit) == sum(value <= limit for value in values)
    assert counted.quantiles(SHARES) == [quantile(values, share) for share in SHARES]


@settings(max_examples=20)
@given(spaces(most=120), names, st.data())
def test_ranks_are_the_members_within_a_limit_each_once(
    pair: tuple[Space, Named], name: str, data: st.DataObject
) -> None:
    space, members = pair
    graph = Graph(space)
    limit = data.draw(st.sampled_from(sorted({costs(member)[name] for member in members})))
    within = {member for member in members if costs(member)[name] <= limit}
    whole = table(graph, name, limit)
    assert whole.exact and whole.total == len(within)
    assert {graph.member(whole.unrank(rank)) for rank in range(whole.total)} == within
    assert table(graph, name, min(costs(member)[name] for member in members) - 1).total == 0
    if name in SUMS:  # one that must make do with less, and one with long numbers
        coarse = SumTable(graph, name, limit, most_work=20)
        found = [graph.member(coarse.unrank(rank)) for rank in range(coarse.total)]
        assert len(found) == len(set(found)) and within <= set(found) <= set(members)
        assert coarse.exact or coarse.coarse > 1


@settings(max_examples=20)
@given(spaces(most=120), names, st.data())
def test_values_of_choices(pair: tuple[Space, Named], name: str, data: st.DataObject) -> None:
    space, members = pair
    ranges = used_ranges(Graph(space), [name])
    assert ranges is not None
    found = ranges[name]
    expected: dict[tuple[str, Any], list[int]] = {
        (choice, value): [] for choice, values in space.choices.items() for value in values
    }
    for member, named in members.items():
        for item in {item for params in named for item in params.items()}:
            expected[item].append(costs(member)[name])
    assert found == {
        item: (min(values), max(values)) if values else (math.inf, -math.inf) for item, values in expected.items()
    }


@settings(max_examples=20)
@given(spaces(most=120), st.data())
def test_several_limits_together(pair: tuple[Space, Named], data: st.DataObject) -> None:
    space, members = pair
    known = {member: costs(member) for member in members}
    chosen = data.draw(st.lists(names, min_size=1, max_size=3, unique=True))
    budget = {name: data.draw(st.sampled_from(sorted({row[name] for row in known.values()}))) for name in chosen}
    within = {member for member, row in known.items() if all(row[name] <= budget[name] for name in budget)}
    graph = Graph(space)
    assert can_fit(graph, budget) == bool(within)
    if not within:
        with pytest.raises(InputError, match=r"together leave nothing of space .*, though each alone leaves some"):
            Feasible(space, budget)
        return
    feasible = Feasible(space, budget)
    numbered = [feasible.number(rank) for rank in range(feasible.total)]
    assert {member for member in numbered if member} == within
    assert len([member for member in numbered if member]) == len(within)
    rng, again = random.Random(1), random.Random(1)
    assert feasible.draw(rng) in within and feasible.draw(again) == feasible.draw(random.Random(1))


# --- a space that nobody can list: 12^20 members, 3.8e21


def huge(rows: int = 20) -> Space:
    row = {"block": "separable", "c": [8, 16], "k": [3, 5], "n": [1, 2, 3]}
    data = {"in_channels": 1, "resolution": 4, "stem": {"block": "conv", "c": 8}, "head": [{"block": "classifier"}]}
    return Space.from_dict({**data, "name": "huge", "stages": [row] * rows})


@cache
def distribution(rows: int, name: str) -> dict[int, int]:
    """Members by cost, with Python's integers, by hand: what stands in front of a row matters only by its channels."""
    space = huge(1)
    state = {8: {0: 1}}
    for _ in range(rows):
        after: dict[int, dict[int, int]] = {8: {}, 16: {}}
        for channels, counts in state.items():
            for member in space.enumerate():
                stage = member.stages[1]
                own = sum(COSTS[name].of(trace_layer(layer)) for layer in stage.layers(channels, 4))
                for cost, count in counts.items():
                    after[stage.c][cost + own] = after[stage.c].get(cost + own, 0) + count
        state = after
    ends: dict[int, int] = {}
    for channels, counts in state.items():
        own = COSTS[name].of(trace_layer(Layer("classifier", channels, 10, 1, 4)))
        own += COSTS[name].of(trace_layer(Layer("conv", 1, 8, 1, 4)))
        for cost, count in counts.items():
            ends[cost + own] = ends.get(cost + own, 0) + count
    return ends


@pytest.mark.parametrize("name", ["params", "macs"])
def test_counts_stay_exact_beyond_64_bits(name: str) -> None:
    space, truth = huge(), distribution(20, name)
    assert space.size == sum(truth.values()) == 12**20 > 10**20
    graph, ordered = Graph(space), sorted(truth)
    counted = Halves(graph, name)
    middle = counted.quantiles(SHARES)
    assert (middle[0], middle[-1]) == (ordered[0], ordered[-1])
    for limit in (*middle, ordered[3], ordered[-2]):
        expected = sum(count for cost, count in truth.items() if cost <= limit)
        assert counted.within(limit) == expected
        within = SumTable(graph, name, limit)
        assert within.exact and within.total == expected
        path = within.unrank(expected - 1)
        assert space.contains(graph.member(path)) and graph.costs(path)[name] <= limit


def test_draws_of_a_huge_space_are_spread_like_its_members() -> None:
    """Of the members within the median: the shares of their costs, a chi-square of ten equal parts."""
    space, truth = huge(), distribution(20, "params")
    half = Halves(Graph(space), "params").quantiles([0.5])[0]
    feasible = Feasible(space, {"params": half})
    inside = sum(count for cost, count in truth.items() if cost <= half)
    assert feasible.exact and feasible.total == inside
    parts, below = {}, 0
    for cost in sorted(truth):
        parts[cost] = 10 * below // inside
        below += truth[cost]
    rng, draws = random.Random(0), 300
    counts, weights = [0] * 20, [0.0] * 20
    for cost, part in parts.items():
        if cost <= half:
            weights[part] += truth[cost] / inside
    for _ in range(draws):
        member = feasible.draw(rng)
        assert costs(member)["params"] <= half
        counts[parts[costs(member)["params"]]] += 1
    found = sum((n - draws * w) ** 2 / (draws * w) for n, w in zip(counts, weights, strict=True) if w)
    # 9 degrees of freedom: 0.1 % beyond 27.9.
    assert found < 27.9


def test_of_two_tight_limits_the_one_that_leaves_less_is_drawn_from() -> None:
    """Neither leaves one of a thousand draws, so that they do not tell which."""
    space = huge(8)
    graph = Graph(space)
    for share in (1e-4, 1e-6):
        rows = {name: Halves(graph, name).quantiles([share])[0] for name in ("params", "macs")}
        few = Halves(graph, "macs").quantiles([share / 100])[0]
        for budget in ({"params": rows["params"], "macs": few}, {"macs": few, "params": rows["params"]}):
            assert Feasible(space, budget, graph).main == "macs"


def test_members_that_are_rare_are_drawn_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    space = huge(8)
    graph = Graph(space)
    budget = {name: Halves(graph, name).quantiles([0.05])[0] for name in ("params", "macs")}
    feasible = Feasible(space, budget, graph)
    monkeypatch.setattr("nas.census.feasible.DRAWS", 1)
    rng = random.Random(0)
    tries = [list(feasible.tries(rng)) for _ in range(50)]
    assert max(map(len, tries)) > 1
    assert all(each[-1] is not None and not any(each[:-1]) for each in tries)


# --- what a budget leaves nothing of


def test_the_refusal_names_the_nearest_miss() -> None:
    space = huge(2)
    least = min(space.enumerate(), key=lambda member: costs(member)["params"])
    with pytest.raises(InputError) as caught:
        Feasible(space, {"macs": 10**9, "params": 100})
    assert str(caught.value) == (
        f"budget: params 100 leaves nothing of space huge: its cheapest architecture has "
        f"{costs(least)['params']:,} (id {least.id})"
    )


def test_limits_that_exclude_each_other_are_refused_with_the_nearest_miss() -> None:
    # The cheapest in params has the larger picture: each limit alone can be met.
    data: dict[str, Any] = {
        "name": "torn",
        "in_channels": 1,
        "choices": {"way": [1, 2]},
        "head": {"block": "classifier"},
    }
    data["resolution"] = {"by": "way", "table": {1: 32, 2: 4}}
    data["stem"] = {"block": "conv", "c": {"by": "way", "table": {1: 8, 2: 16}}}
    data["stages"] = [{"block": "separable", "c": [8, 16], "k": [3, 5]}]
    space = Space.from_dict(data)
    rows = [costs(member) for member in space.enumerate()]
    budget = {name: min(row[name] for row in rows) for name in ("params", "macs")}
    assert not any(all(row[name] <= budget[name] for name in budget) for row in rows)
    with pytest.raises(
        InputError, match=r"^budget: params [\d,]+ and macs [\d,]+ together leave nothing of space torn"
    ):
        Feasible(space, budget)
    wide = Space.from_dict(data | {"stages": data["stages"] * 8})
    rows = [costs(wide.sample(random.Random(seed))) for seed in range(3)]
    graph = Graph(wide)
    budget = {name: int(graph.behind(name, np.min)[0]) for name in ("params", "macs")}
    with pytest.raises(InputError, match=r"\(proven\)|\(all .* tried\)"):
        Feasible(wide, budget)


# --- layers


@pytest.mark.parametrize("block", BLOCKS)
def test_options_said_to_cost_nothing_do_not(block: str) -> None:
    needed: dict[str, Any] = {name: 2 for name, option in options_of(block).items() if option.default is None}
    assert set(WITHOUT_COST) == {"activation"}
    if "activation" not in options_of(block):
        return
    for c_in, c_out, stride in ((32, 32, 1), (32, 64, 2)):
        if blocks.problem(block, c_in, c_out, stride, 8, needed):
            continue
        layers = [
            Layer(block, c_in, c_out, stride, 8, tuple(sorted({**needed, "activation": name}.items())))
            for name in ACTIVATIONS
        ]
        assert len({tuple(cost.of(trace_layer(layer)) for cost in COSTS.values()) for layer in layers}) == 1


def test_layers_are_traced_once_and_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ledger, "WORTH_KEEPING", 1)
    layers = [Layer("separable", 8, c, 1, 6) for c in (8, 16, 24)]
    traced: list[Layer] = []
    monkeypatch.setattr(ledger, "trace_layer", lambda layer: (traced.append(layer), trace_layer(layer))[1])
    first = layer_costs(layers[:2])
    assert first == {x: tuple(cost.of(trace_layer(x)) for cost in COSTS.values()) for x in layers[:2]}
    assert layer_costs(layers) | first == layer_costs(layers) and len(traced) == 3
    (file,) = (tmp_path / "nas").iterdir()
    file.write_text("[1")  # as by another program
    assert layer_costs(layers[:2]) == first and len(traced) == 5
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert layer_costs(layers[:2]) == first, "a place that cannot be written stops nobody"
    # A block that is not in this package's files may change unseen.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    own = type("Own", (BLOCKS["conv"],), {})
    own.__module__ = __name__
    monkeypatch.setitem(BLOCKS, "own", own)
    layer_costs([*layers, Layer("own", 8, 16, 1, 6)])
    assert not (tmp_path / "other").exists()
    layer_costs(layers)
    assert (tmp_path / "other").exists(), "what has none of them is kept all the same"


def test_a_space_of_too_many_layers_is_drawn_from_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "MOST_LAYERS", 3)
    space = huge(2)
    with pytest.raises(TooManyLayers):
        Graph(space)
    values = sorted(costs(member)["params"] for member in space.enumerate())
    feasible = Feasible(space, {"params": values[20]})
    found = {feasible.draw(random.Random(seed)) for seed in range(400)}
    assert found == {member for member in space.enumerate() if costs(member)["params"] <= values[20]}
    with pytest.raises(InputError, match=r"budget: params 1 leaves nothing of space huge .*all 144 members tried"):
        Feasible(space, {"params": 1})
