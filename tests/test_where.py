"""Conditions, order and columns as a user writes them."""

from __future__ import annotations

import pandas as pd
import pytest

from nas.inputs import InputError
from nas.report.where import columns_of, in_order, where

TABLE = pd.DataFrame(
    {
        "id": ["a1", "b2", "c3", "d4"],
        "accuracy": [0.5, 0.9, 0.95, 0.7],
        "accuracy_std": [0.1, None, 0.2, None],
        "params": [1000, 20_000, 300_000, 2_000],
        "knee": [False, True, False, False],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params < 0.3M", ["a1", "b2", "d4"]),
        ("params<=0.3M", ["a1", "b2", "c3", "d4"]),
        ("params < 0.3M and accuracy > 0.6", ["b2", "d4"]),
        ("params >= 300k or accuracy = 0.5", ["a1", "c3"]),
        ("accuracy > 0.9 or params < 3k and accuracy > 0.6", ["c3", "d4"]),
        ("params != 1k", ["b2", "c3", "d4"]),
        ("accuracy_std > 0", ["a1", "c3"]),
        ("id = b2", ["b2"]),
        ("id != 'b2' and params > 1500", ["c3", "d4"]),
        ("accuracy > 2", []),
    ],
)
def test_a_condition_chooses_rows(text: str, expected: list[str]) -> None:
    assert where(TABLE, text)["id"].tolist() == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--where is '', but must be comparisons such as params < 0.3M"),
        ("params", "but must be comparisons"),
        ("params < 3 and", "must be a positive number"),
        ("(params < 3)", "but must be comparisons"),
        ("__import__('os').system('x') < 3", "but must be comparisons"),
        ("width < 3", "--where: column is 'width', but must be one of: accuracy"),
        ("params < many", "--where: params is 'many', but must be a positive number"),
        ("params < @x", "--where: params is '@x', but must be a positive number"),
        ("id < b2", "--where: id is '< b2', but must be = or != a word"),
        ("macs < 3", "column is 'macs'"),
    ],
)
def test_what_is_no_condition_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        where(TABLE, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_order_rises_or_falls() -> None:
    assert in_order(TABLE, "params")["id"].tolist() == ["a1", "d4", "b2", "c3"]
    assert in_order(TABLE, "-accuracy")["id"].tolist() == ["c3", "b2", "d4", "a1"]
    with pytest.raises(InputError, match="--sort is 'x', but must be one of: accuracy, "):
        in_order(TABLE, "x")


def test_milliseconds_are_columns_where_they_are_known() -> None:
    table = TABLE.assign(latency_ms=pd.array([0.5, 0.25, None, 2.0], "Float64"))
    table["measured_ms"] = pd.array([None, 0.3, None, None], "Float64")
    assert where(table, "latency_ms < 1")["id"].tolist() == ["a1", "b2"]
    assert where(table, "measured_ms > 0 and latency_ms > 0.1")["id"].tolist() == ["b2"]
    assert in_order(table, "latency_ms")["id"].tolist() == ["b2", "a1", "d4", "c3"]
    assert columns_of("id,latency_ms,measured_ms", table) == ["id", "latency_ms", "measured_ms"]


def test_columns_are_named_once() -> None:
    assert columns_of("id, params", TABLE) == ["id", "params"]
    for text, message in [("id,x", "'x', but must be one of"), ("id,id", "but has id twice")]:
        with pytest.raises(InputError, match=message):
            columns_of(text, TABLE)
