"""The definitions, written out naively, against what `nas.pareto` gets from moocore; knees and volumes by hand."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nas.pareto import front, hypervolume, knee

Points = NDArray[np.float64]
NAN, INF = float("nan"), float("inf")


@st.composite
def problems(draw: st.DrawFn, rough: Sequence[float] = (NAN, INF, -INF)) -> tuple[Points, list[bool]]:
    """(points, maximise): 1 to 5 objectives; few distinct values, so that ties and equal rows are common."""
    width = draw(st.integers(1, 5))
    small = st.integers(-3, 3).map(float)
    number = st.one_of(small, small, st.floats(-1e6, 1e6), st.sampled_from([0.0, -0.0, *rough]))
    rows = draw(st.lists(st.lists(number, min_size=width, max_size=width), max_size=12))
    rows += draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
    maximise = draw(st.lists(st.booleans(), min_size=width, max_size=width))
    return np.array(rows, dtype=float).reshape(-1, width), maximise


def dominates(one: Points, other: Points, maximise: Sequence[bool]) -> bool:
    signs = np.where(maximise, -1.0, 1.0)
    return bool((one * signs <= other * signs).all() and (one * signs < other * signs).any())


def grid_volume(points: Points, reference: Sequence[float], maximise: Sequence[bool]) -> float:
    """Volume as a sum over the cells between all coordinates: a cell counts if some point dominates its corner."""
    signs = np.where(maximise, -1.0, 1.0)
    rows, corner = points * signs, np.asarray(reference) * signs
    rows = rows[(rows < corner).all(axis=1)]
    edges = [np.unique(np.append(rows[:, i], corner[i])) for i in range(rows.shape[1])]
    total = 0.0
    for cell in itertools.product(*(range(len(edge) - 1) for edge in edges)):
        low = np.array([edge[i] for edge, i in zip(edges, cell, strict=True)])
        if (rows <= low).all(axis=1).any():
            total += float(np.prod([edge[i + 1] - edge[i] for edge, i in zip(edges, cell, strict=True)]))
    return total


@given(problems())
def test_front_is_what_no_row_dominates(problem: tuple[Points, list[bool]]) -> None:
    points, maximise = problem
    whole = [row for row in points if not np.isnan(row).any()]
    expected = [not np.isnan(row).any() and not any(dominates(x, row, maximise) for x in whole) for row in points]
    mask = front(points, maximise)
    assert mask.dtype == np.bool_ and mask.shape == (len(points),)
    assert mask.tolist() == expected


def test_front_keeps_equal_rows_and_drops_weakly_dominated_ones() -> None:
    accuracy_params = [[0.9, 10], [0.9, 10], [0.9, 11], [0.8, 10], [0.8, 5], [NAN, 1], [0.99, NAN]]
    expected = [True, True, False, False, True, False, False]
    assert front(accuracy_params, [True, False]).tolist() == expected


@pytest.mark.parametrize("empty", [[], np.empty((0, 2))])
def test_no_points(empty: object) -> None:
    assert front(empty, [True, False]).shape == (0,)  # type: ignore[arg-type]
    assert hypervolume(empty, [0, 1], [True, False]) == 0.0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least one"):
        knee(empty, [True, False], [False, True])  # type: ignore[arg-type]


@pytest.mark.parametrize("width", range(1, 7))
@pytest.mark.parametrize("infinity", [INF, -INF])
def test_front_of_infinities(width: int, infinity: float) -> None:
    # moocore 0.3.2 alone gives [.., True, True] from four objectives on (and crashes on larger sets of the kind).
    points = np.zeros((3, width))
    points[1:, 0] = infinity
    points[2, -1] = np.nextafter(infinity, 0) if width == 1 else 1.0
    assert front(points, [infinity > 0] + [False] * (width - 1)).tolist() == [False, True, False]


def test_hypervolume_of_infinities() -> None:
    assert hypervolume([[INF, 0.0], [3.0, INF]], [4, 4], [False, False]) == 0.0
    assert hypervolume([[-INF, 0.0]], [4, 4], [False, False]) == INF
    assert hypervolume([[INF, 5.0], [3.0, 3.0]], [0, 4], [True, False]) == 3.0


def test_nothing_but_nan() -> None:
    assert front([[NAN, 1.0]], [True, False]).tolist() == [False]
    assert hypervolume([[NAN, 1.0]], [0, 2], [True, False]) == 0.0


def test_points_of_another_width_are_a_mistake() -> None:
    with pytest.raises(AssertionError, match="2 objectives"):
        front([[1.0, 2.0, 3.0]], [True, False])


@pytest.mark.parametrize(
    ("points", "reference", "maximise", "volume"),
    [
        ([[3.0]], [5.0], [False], 2.0),
        ([[3.0], [4.0]], [0.0], [True], 4.0),
        ([[1, 3], [2, 2], [3, 1]], [4, 4], [False, False], 6.0),
        ([[1, 3], [2, 2], [3, 1], [2, 2], [3, 3]], [4, 4], [False, False], 6.0),
        ([[0.9, 30], [0.5, 10]], [0, 40], [True, False], 0.9 * 10 + 0.5 * 20),
        ([[1, 1, 1]], [3, 4, 5], [False, False, False], 24.0),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], [2, 2, 2], [False] * 3, 7.0),
        ([[0, 0, 0, 0], [1, 1, 1, -1]], [2, 2, 2, 2], [False] * 4, 17.0),
        ([[0, 0, 0, 0, 0]], [2, 2, 2, 2, 2], [False] * 5, 32.0),
        ([[4, 0], [0, 4], [5, -9], [NAN, 0]], [4, 4], [False, False], 0.0),
        ([[5, 0], [1, 1]], [4, 4], [False, False], 9.0),
    ],
)
def test_hypervolume_by_hand(
    points: list[list[float]], reference: list[float], maximise: list[bool], volume: float
) -> None:
    assert hypervolume(points, reference, maximise) == pytest.approx(volume, rel=1e-12)


@given(st.data(), st.integers(1, 4))
def test_hypervolume_is_the_sum_of_its_cells_and_never_falls(data: st.DataObject, width: int) -> None:
    # Whole numbers up to 9: every volume is exact in floating point, so the comparisons need no tolerance.
    row = st.lists(st.integers(0, 9).map(float), min_size=width, max_size=width)
    points = np.array(data.draw(st.lists(row, max_size=6)), dtype=float).reshape(-1, width)
    reference = data.draw(row)
    maximise = data.draw(st.lists(st.booleans(), min_size=width, max_size=width))
    volumes = [hypervolume(points[:n], reference, maximise) for n in range(len(points) + 1)]
    assert volumes == sorted(volumes)
    assert volumes[-1] == grid_volume(points, reference, maximise)
    assert volumes[-1] == hypervolume(points[front(points, maximise)], reference, maximise)


@pytest.mark.parametrize("shift", [0.0, 1e-9])
def test_hypervolume_leaves_its_arguments_alone(shift: float) -> None:
    points = np.array([[0.5, 2.0], [0.25 + shift, 1.0]])
    before = points.copy()
    front(points, [True, False])
    hypervolume(points, [0, 4], [True, False])
    knee(points, [True, False], [False, True])
    assert (points == before).all()


@pytest.mark.parametrize(
    ("points", "maximise", "log", "index"),
    [
        ([[0.7, 3.0]], [True, False], [False, True], 0),
        # The middle point is far below the chord between the ends.
        ([[0, 10], [1, 1], [10, 0]], [False, False], [False, False], 1),
        # Above the chord: an end wins, the first of the two.
        ([[0, 10], [9, 9], [10, 0]], [False, False], [False, False], 0),
        ([[10, 0], [9, 9], [0, 10]], [False, False], [False, False], 0),
        # Accuracy up, params down: a point that is cheap in proportion (2e5 of 1e6) is not cheap in decades.
        ([[0.50, 1e4], [0.80, 1e5], [0.90, 1e6]], [True, False], [False, False], 1),
        ([[0.50, 1e4], [0.60, 1e5], [0.65, 2e5], [0.90, 1e6]], [True, False], [False, True], 0),
        ([[0.50, 1e4], [0.60, 1e5], [0.65, 2e5], [0.90, 1e6]], [True, False], [False, False], 2),
        # Equal points, and points equally far below the chord though rounding differs: the first.
        ([[0, 1], [0.2, 0.2], [0.2, 0.2], [1, 0]], [False, False], [False, False], 1),
        ([[0, 1], [0.1, 0.5], [0.2, 0.4], [0.3, 0.3], [1, 0]], [False, False], [False, False], 1),
        # A constant objective counts nothing.
        ([[0, 10, 7], [1, 1, 7], [10, 0, 7]], [False, False, True], [False, False, True], 1),
        ([[5, 5], [5, 5]], [True, False], [False, True], 0),
        # One objective: the best.
        ([[3.0], [1.0], [2.0]], [False], [True], 1),
        ([[3.0], [1.0], [2.0]], [True], [False], 0),
        # Three objectives, none at its best in the middle row.
        ([[0, 0, 9], [9, 0, 0], [0, 9, 0], [1, 1, 1]], [False] * 3, [False] * 3, 3),
    ],
)
def test_knee_by_hand(points: list[list[float]], maximise: list[bool], log: list[bool], index: int) -> None:
    assert knee(points, maximise, log) == index


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12), st.booleans())
def test_knee_of_two_objectives_is_farthest_below_the_chord(rows: list[tuple[int, int]], log: bool) -> None:
    points = np.array(rows, dtype=float)
    points = points[front(points, [True, False])]
    chosen = knee(points, [True, False], [False, log])
    x, y = -points[:, 0], np.log(points[:, 1]) if log else points[:, 1]
    left, right = x.argmin(), x.argmax()
    if left == right:
        assert chosen == 0
        return
    x, y = (x - x[left]) / (x[right] - x[left]), (y - y[right]) / (y[left] - y[right])
    # Cross product of the chord with the way from its left end to each point: positive below the chord.
    depth = (y[left] - y[right]) * (x - x[left]) * -1 - (x[right] - x[left]) * (y - y[left])
    assert depth[chosen] == pytest.approx(depth.max(), abs=1e-9)


@pytest.mark.parametrize(
    ("row", "message"), [([0.5, 0.0], "must be positive"), ([0.5, -1.0], "must be positive"), ([NAN, 1.0], "finite")]
)
def test_knee_refuses(row: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        knee([[0.9, 3.0], row], [True, False], [False, True])
