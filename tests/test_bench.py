"""A table instead of training: reading it, playing on it, and what is said of the players."""

from __future__ import annotations

import json
import lzma
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas.bench import PLAYERS, Task, play, play_all, read_table, summary
from nas.bench.players import WALKS
from nas.cli import main
from nas.inputs import InputError


def frame() -> pd.DataFrame:
    """60 rows: accuracy rises with the cost, most for `a`; the second seed is a little better."""
    rows = [
        {
            "a": a,
            "b": b,
            "kind": kind,
            "accuracy.0": 0.9 - 0.3 / (1 + a) - 0.1 / (1 + b) + 0.01 * (kind == "y"),
            "accuracy.1": 0.91 - 0.3 / (1 + a) - 0.1 / (1 + b) + 0.01 * (kind == "y"),
            "cost.params": 100.0 * (1 + a) + 10 * b + (kind == "y"),
            "cost.macs": 7.0 * (1 + a) * (1 + b),
            "feature.depth": float(a + b),
        }
        for a, b, kind in product(range(6), range(5), ("x", "y"))
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    frame().to_csv(tmp_path / "made.csv", index=False)
    return tmp_path / "made.csv"


def test_csv_and_parquet_are_the_same_table(csv: Path) -> None:
    frame().to_parquet(csv.with_suffix(".parquet"))
    one, other = read_table(csv), read_table(csv.with_suffix(".parquet"))
    assert one.choices == other.choices == {"a": (0, 1, 2, 3, 4, 5), "b": (0, 1, 2, 3, 4), "kind": ("x", "y")}
    assert one.rows == other.rows and one.name == "made" and len(one) == 60
    assert one.params(one.place({"a": 2, "b": 1, "kind": "y"})) == {"a": 2, "b": 1, "kind": "y"}
    assert set(one.costs) == {"params", "macs"} and set(one.features) == {"depth"}


@pytest.mark.parametrize("ending", [".json", ".json.xz"])
def test_the_form_of_nas_bench_macro(tmp_path: Path, ending: str) -> None:
    data = {
        f"{a}{b}": {"test_acc": [80.0 + a, 81.0 + a], "mean_acc": 80.5 + a, "params": 10 + a, "flops": 20 + b}
        for a, b in product(range(3), range(3))
    }
    path = tmp_path / f"macro{ending}"
    with lzma.open(path, "wt") if ending.endswith("xz") else open(path, "w", encoding="utf-8") as file:
        json.dump(data, file)
    table = read_table(path)
    place = table.place({"layer 1": 2, "layer 2": 0})
    assert table.accuracy[place].tolist() == [0.82, 0.83] and table.features["depth"][place] == 1
    assert table.costs["params"][place] == 12 and table.costs["macs"][place] == 20
    assert Task(table, "macs").reference == (0.8, 126.1e6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda data: data.drop(columns=["accuracy.0", "accuracy.1"]),
            "has no column for accuracy; its columns are: a, b",
        ),
        (lambda data: data.drop(columns=["cost.params", "cost.macs"]), "has no column for cost.NAME"),
        (lambda data: data.assign(**{"accuracy.0": 91.0}), "an accuracy is 91.0, but must be a fraction"),
        (lambda data: data.assign(a=1), "every row must have its own answers to all of: a, b, kind"),
        (lambda data: data.assign(**{"cost.params": "many"}), "accuracies, costs and features must be numbers"),
    ],
)
def test_a_table_that_will_not_do(csv: Path, change, says: str) -> None:  # type: ignore[no-untyped-def]
    change(frame()).to_csv(csv, index=False)
    with pytest.raises(InputError, match=says):
        read_table(csv)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("no.csv", None, "cannot be read: No such file"),
        ("a.txt", "", "but must be a file that ends in"),
        ("a.json", "{", "cannot be read: Expecting"),
        ("a.json", '{"00": 1}', "is not in the form of NAS-Bench-Macro"),
        ("a.json.xz", "no", "cannot be read: "),
    ],
)
def test_a_file_that_is_no_table(tmp_path: Path, name: str, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=says):
        read_table(tmp_path / name)


def test_shares_of_the_whole_rise_to_one(csv: Path) -> None:
    task = Task(read_table(csv), "params")
    curve = task.volumes(range(60))
    assert (np.diff(curve) >= 0).all() and curve[-1] == pytest.approx(1)
    within = Task(read_table(csv), "params", {"params": 350.0})
    assert within.regrets(range(60))[-1] == 0 and within.volumes([59])[0] == 0, "over the budget is worth nothing"
    with pytest.raises(InputError, match="a cost is 'watts', but must be one of: macs, params"):
        Task(read_table(csv), "watts")
    with pytest.raises(InputError, match="the budget is 'params 1'"):
        Task(read_table(csv), "params", {"params": 1.0})


@pytest.mark.parametrize("player", sorted({*PLAYERS, *WALKS} - {"gp"}))
def test_every_player_plays(csv: Path, player: str) -> None:
    task = Task(read_table(csv), "macs", {"params": 500.0})
    played = play(task, player, 0, 8)
    assert played == play(task, player, 0, 8) or player not in WALKS
    assert played.places == play(task, player, 0, 8).places
    assert len(set(played.places)) == len(played.places) <= 8 <= max(8, played.proposals) <= 16
    if player.startswith(("surrogate", "walk")):
        assert len(played.places) == 8 and task.fits[played.places].all(), "nothing over the budget, nothing twice"


def test_a_walk_goes_by_the_other_cost_where_depth_is_equal(tmp_path: Path) -> None:
    """Front after front of the greatest depth and least params; of two rows that are equal in all, one at a time."""
    rows = [(0, 1, 5, 1), (1, 2, 5, 1), (2, 2, 9, 1), (3, 2, 9, 1), (4, 1, 7, 2)]
    data = pd.DataFrame(rows, columns=["row", "feature.depth", "cost.macs", "cost.params"])
    data.assign(accuracy=data["row"] / 10).to_csv(tmp_path / "made.csv", index=False)
    task = Task(read_table(tmp_path / "made.csv"), "params")
    found = [list(WALKS["walk-depth"](task, seed)) for seed in range(8)]
    assert {tuple(sorted(walk[:2])) for walk in found} == {(2, 3)} and {walk[0] for walk in found} == {2, 3}
    assert {walk[2] for walk in found} == {1}


def test_a_walk_needs_what_it_goes_by_before_anyone_plays(csv: Path) -> None:
    frame().drop(columns="feature.depth").to_csv(csv, index=False)
    told: list[str] = []
    with pytest.raises(InputError, match=r"made: has no column for feature\.depth, which walk-depth goes by"):
        play_all(
            Task(read_table(csv), "params"), ["walk", "walk-depth"], 1, 5, on_played=lambda x: told.append(x.player)
        )
    assert told == []


def test_the_reference_is_of_what_is_within_the_budget(csv: Path) -> None:
    table = read_table(csv)
    assert Task(table, "params").reference == (np.median(table.accuracy.mean(axis=1)), table.costs["params"].max())
    tight = Task(table, "params", {"params": 111.0})  # its four rows are among the least accurate of all
    assert tight.reference == (pytest.approx(0.535), 111) and tight.volumes(range(60))[-1] == pytest.approx(1)
    says = "made: has no row within the budget that is better than the reference, accuracy 0.5050 and params 100"
    with pytest.raises(InputError, match=says):
        Task(table, "params", {"params": 100.0})


def test_the_summary_counts_evaluations(csv: Path) -> None:
    task = Task(read_table(csv), "params", {"macs": 100.0})
    told: list[str] = []
    played = play_all(task, ["surrogate", "walk"], 3, 20, on_played=lambda each: told.append(each.player))
    facts = summary(task, played)
    assert told == ["surrogate", "walk"] * 3 and facts["surrogate"]["seeds"] == 3
    ours = facts["surrogate"]
    assert ours["evaluations_to_95"] <= ours["evaluations_to_95_p90"] <= 20
    assert ours["evaluations_to_95_reached"] == 3 and ours["repeated"] == 0 and ours["ms_per_ask"] > 0
    assert list(ours["hypervolume_at"]) == list(ours["regret_at"]) == ["10"] and len(ours["hypervolume"]) == 20
    counts = [int(np.argmax(task.volumes(each.places) >= 0.95)) + 1 for each in played if each.player == "surrogate"]
    assert ours["evaluations_to_95"] == np.median(counts) and ours["evaluations_to_95_p90"] == max(counts)


def test_the_command(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", str(csv), "--samplers", "surrogate,random", "--seeds", "1", "--evaluations", "10"]
    picture = csv.with_name("curve.svg")
    assert main([*command, "--json", "--budget", "params=500", "--plot", str(picture)]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["samplers"]) == {"surrogate", "random"} and facts["cost"] == "params" and picture.exists()
    assert {"evaluations_to_95", "evaluations_to_98", "evaluations_to_99", "ms_per_ask"} <= set(
        facts["samplers"]["random"]
    )
    assert main(command) == 0
    assert "made: 60 rows, accuracy against params" in capsys.readouterr().out
    assert main([*command, "--samplers", "best"]) != 0
    assert "nas: --samplers is 'best', but must be one of: gp, nsga2" in capsys.readouterr().err


def test_players_that_come_to_an_end_have_the_marks_of_the_others(
    csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--samplers", "walk,random", "--seeds", "1", "--evaluations", "25", "--budget", "params=150"]
    assert main(["bench", str(csv), *words]) == 0  # that leaves the walk 10 rows
    heads = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("sampler")]
    assert [[word for word in head if word[0] == "@"] for head in heads] == [["@10", "@25"]] * 2
    assert main(["bench", str(csv), *words, "--json"]) == 0
    walk = json.loads(capsys.readouterr().out)["samplers"]["walk"]
    assert walk["hypervolume_at"] == {"10": 1.0, "25": 1.0} and walk["regret_at"] == {"10": 0.0, "25": 0.0}


def test_processes_play_as_one_does(csv: Path) -> None:
    task = Task(read_table(csv), "params")
    one, two = (play_all(task, ["random"], 2, 6, workers) for workers in (1, 2))
    assert [each.places for each in one] == [each.places for each in two]
