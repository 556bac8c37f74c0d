"""Successive halving on plain values: who is cut, how the margin is learnt, what is measured again."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.rungs import LEAST, SPAN, Halving, angle, shortfalls
from nas.study.confirming import Confirming


def learnt(keep: float = 0.01, noise: float = 0.0, count: int = 12) -> Halving:
    """Candidates of one cost with accuracies from 0.5 to 0.7 at rung 0, and 0.1 (and noise) more at the top."""
    halving, rng = Halving(2, keep), random.Random(0)
    for number in range(count):
        low = 0.5 + 0.2 * number / (count - 1)
        halving.note(number, [100.0], [low, low + 0.1 + rng.gauss(0.0, noise)])
    return halving


def test_before_a_rungs_worth_is_known_all_go_on() -> None:
    halving = Halving(2, keep=0.01)
    for number in range(LEAST - 1):
        halving.note(number, [100.0], [0.5 + number / 10, 0.6 + number / 10])
    halving.note(99, [100.0], [0.01])
    assert halving.judge(99).goes_on
    halving.note(50, [100.0], [0.9, 0.95])
    assert not halving.judge(99).goes_on


def test_a_cheap_network_is_never_cut_for_being_less_accurate_than_a_dear_one() -> None:
    halving = learnt()
    halving.note(20, [99.0], [0.1])
    assert halving.judge(20).goes_on and halving.judge(20).leader is None
    halving.note(21, [101.0], [0.1])
    assert not halving.judge(21).goes_on and halving.judge(21).leader == 11


def test_only_neighbours_in_cost_are_compared() -> None:
    halving = learnt()
    halving.note(20, [100.0 * SPAN * 1.01], [0.1])
    assert halving.judge(20).goes_on
    halving.note(21, [100.0 * SPAN * 0.99], [0.09])
    assert not halving.judge(21).goes_on


def test_of_several_costs_a_leader_has_none_that_is_more() -> None:
    halving = Halving(2, keep=0.01)
    for number in range(6):
        halving.note(number, [100.0, 100.0], [0.5 + number / 20, 0.6 + number / 20])
    halving.note(20, [110.0, 90.0], [0.1])
    halving.note(21, [110.0, 110.0], [0.09])
    assert halving.judge(20).goes_on and not halving.judge(21).goes_on


def test_without_costs_the_best_share_goes_on() -> None:
    halving = Halving(2, keep=1 / 3)
    for number in range(5):
        halving.note(number, [], [0.5 + number / 10, 0.55 + number / 10])
    outcomes = []
    for number, accuracy in enumerate((0.2, 0.3, 0.85, 0.1), 10):
        halving.note(number, [], [accuracy])
        outcomes.append(halving.judge(number).goes_on)
    assert outcomes == [False, False, True, False]


def test_the_margin_grows_with_what_a_rung_does_not_tell() -> None:
    floors = []
    for noise in (0.0, 0.01, 0.05, 0.2):
        halving = learnt(noise=noise)
        halving.note(20, [100.0], [0.55])
        floors.append(halving.judge(20).floor)
    assert floors == sorted(floors, reverse=True) and floors[0] > 0.65 > floors[2]


def test_where_ranks_turn_round_nobody_is_cut() -> None:
    halving = Halving(2, keep=0.01)
    for number in range(8):
        halving.note(number, [100.0], [0.5 + number / 50, 0.9 - number / 50])
    halving.note(20, [100.0], [0.01])
    assert halving.judge(20).goes_on


def test_the_share_to_keep_goes_on_whatever_the_margin() -> None:
    halving, rng = learnt(keep=0.5, count=6), random.Random(1)
    on = 0
    for number in range(100, 300):
        halving.note(number, [100.0], [rng.uniform(0.0, 0.5)])
        on += halving.judge(number).goes_on
    assert 0.4 < on / 200 < 0.6


def test_what_is_noted_twice_counts_once_and_the_order_of_notes_makes_no_difference() -> None:
    rng = random.Random(2)
    notes = [(n, [rng.uniform(50, 400)], [rng.random() * 0.5, rng.random() * 0.5 + 0.4]) for n in range(20)]
    one, other = Halving(2, 0.3), Halving(2, 0.3)
    for number, costs, accuracies in notes:
        one.note(number, costs, accuracies[:1])
    for number, costs, accuracies in notes[:10]:
        one.note(number, costs, accuracies)
    for number, costs, accuracies in reversed(notes):
        other.note(number, costs, accuracies if number < 10 else accuracies[:1])
    for number in range(10, 20):
        mine, its = one.judge(number), other.judge(number)
        assert (mine.goes_on, mine.leader) == (its.goes_on, its.leader)
        assert mine.floor == pytest.approx(its.floor) and one.expected(number) == pytest.approx(other.expected(number))


points = st.lists(st.tuples(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1)), min_size=1, max_size=12)


@given(points)
def test_shortfalls_are_those_of_the_definition(found: list[tuple[int, int, float]]) -> None:
    """Kept up to date candidate by candidate, and for all at once."""
    halving = Halving(2, 1.0)
    for number, (a, b, accuracy) in enumerate(found):
        halving.note(number, [a, b], [accuracy])
    scores = angle([accuracy for *_, accuracy in found])
    kept = halving._rungs[0].shortfalls
    whole = shortfalls([(a, b) for a, b, _ in found], scores)
    for number, (a, b, _) in enumerate(found):
        cheaper = [i for i, (x, y, _) in enumerate(found) if x <= a and y <= b]
        near = [i for i in cheaper if a <= SPAN * found[i][0] * 1.0000001 and b <= SPAN * found[i][1] * 1.0000001]
        assert kept[number] == pytest.approx(max(scores[i] for i in near) - scores[number])
        assert whole[number] == pytest.approx(max(scores[i] for i in cheaper) - scores[number])


def test_what_a_cut_candidate_would_reach_is_expected_from_the_others_rise() -> None:
    halving = learnt()
    halving.note(20, [100.0], [0.4])
    assert halving.expected(20) == pytest.approx(0.5, abs=0.01)
    halving.note(21, [100.0], [0.99])
    assert halving.expected(21) == pytest.approx(0.8)
    fresh = Halving(2, 0.5)
    fresh.note(0, [1.0], [0.25])
    assert fresh.expected(0) == pytest.approx(0.25)


def test_of_random_candidates_few_that_are_cut_would_have_been_on_the_front() -> None:
    """A simulation: true accuracies rise with the log of the cost, and rungs see them dimly and late."""
    lost = cut = saved = 0
    for seed in range(20):
        rng, halving = np.random.default_rng(seed), Halving(3, 1 / 3)
        costs = np.exp(rng.uniform(math.log(2e4), math.log(36e4), 100))
        true = 0.45 + 0.05 * np.log(costs / 2e4) + rng.normal(0, 0.05, 100)
        late = 0.03 * np.log(costs / 2e4)  # dear networks learn later
        seen = [true - late - 0.2 + rng.normal(0, 0.03, 100), true - late / 2 - 0.1 + rng.normal(0, 0.015, 100), true]
        out = []
        for number in range(100):
            for reached in range(1, 4):
                halving.note(number, [costs[number]], [float(rung[number]) for rung in seen[:reached]])
                if reached < 3 and not halving.judge(number).goes_on:
                    out.append(number)
                    saved += 6 if reached == 2 else 8
                    break
        front = set(np.flatnonzero(shortfalls([[cost] for cost in costs], angle(true)) == 0))
        lost, cut = lost + len(front & set(out)), cut + len(out)
    assert lost / cut <= 0.05 and saved / (20 * 100 * 9) > 0.3


def test_measured_again_are_the_front_and_then_its_near_misses() -> None:
    confirming = Confirming(1)
    for number, (cost, accuracy) in enumerate([(1, 0.5), (2, 0.6), (3, 0.599), (4, 0.3), (5, 0.7)]):
        confirming.trained(number, [cost], accuracy)
    order = []
    while (again := confirming.next()) is not None:
        number, time = again
        order.append(number)
        confirming.begin(number, time)
        confirming.measured_again(number, {0: 0.51, 1: 0.61, 2: 0.6, 4: 0.69}[number])
    assert order[:2] == [0, 1], "the near miss 2 is one only by the spread of these"
    assert sorted(order) == [0, 1, 2, 4]


def test_who_is_on_the_front_only_after_others_fell_is_measured_again_too() -> None:
    confirming = Confirming(2)
    for number, accuracy in enumerate((0.9, 0.8, 0.7)):
        confirming.trained(number, [10.0], accuracy)
    order = []
    while (again := confirming.next()) is not None:
        number, time = again
        order.append(number)
        confirming.begin(number, time)
        confirming.measured_again(number, {0: 0.6, 1: 0.8, 2: 0.7}[number])
    assert order[:2] == [0, 1], "1 is on the front once 0 is measured again"
    assert confirming.begun[0] == confirming.begun[1] == {1, 2}


def test_nothing_is_measured_again_where_nothing_is_asked_for_or_trained() -> None:
    assert Confirming(3).next() is None
    off = Confirming(0)
    off.trained(0, [1.0], 0.5)
    assert off.next() is None
