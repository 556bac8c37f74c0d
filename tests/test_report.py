"""Views of a run: what a space holds, the front as text, files and picture, progress."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from nas.architecture import Architecture, Stage
from nas.config import ProgressConfig, RetrainConfig, StudyConfig
from nas.costs import COSTS, costs
from nas.evaluation import Measurement
from nas.inputs import InputError
from nas.report import progress as progress_module
from nas.report.compare import compare_runs, compare_text, plot_compare
from nas.report.describe import describe_space, wilson
from nas.report.plot import FORMATS, draw_front, plot_front, short_number
from nas.report.progress import SearchWatch, TrainingWatch, TrustWatch, duration
from nas.report.sketch import sketch
from nas.report.space import space_text
from nas.report.tables import front_csv, front_records, save_tables
from nas.report.text import aligned, columns_text, front_text, front_view, receipt_text, short_stages
from nas.run import Run
from nas.space import Space
from nas.study import Told
from nas.tables import front_table
from nas.training import Epoch
from nas.trust import Step

SPACE = Space.from_dict(
    {
        "name": "small",
        "in_channels": 1,
        "resolution": 8,
        "stem": {"block": "conv", "c": [8, 16]},
        "stages": [{"block": "bottleneck", "t": [1, 2, 3], "c": [8, 16], "n": [1, 2], "s": 2}],
        "head": [{"block": "classifier"}],
    }
)

# A space


def test_what_is_said_of_a_space_is_so() -> None:
    members = list(SPACE.enumerate())
    params = sorted(costs(member)["params"] for member in members)
    facts = describe_space(SPACE, {"params": 1500}, samples=20, seed=0)
    assert facts["size"] == facts["networks"] == len(members) == 24
    assert facts["exact"] == list(facts["costs"]) == list(COSTS)
    assert facts["choices"]["stages[0].t"] == [1, 2, 3]
    assert list(facts["costs"]["params"].values()) == [params[0], params[1], params[11], params[22], params[23]]
    fitting = sum(value <= 1500 for value in params)
    assert 0 < fitting < 24
    share = fitting / 24
    alone = {"params": share}
    assert facts["fits"] == {
        "share": share,
        "low": share,
        "high": share,
        "exact": True,
        "main": "params",
        "alone": alone,
    }
    assert facts["nothing"] is None
    for row in facts["members"]:
        member = SPACE.decode(row["params_of_choices"])
        assert {name: row[name] for name in ("id", *COSTS)} == {"id": member.id, **costs(member)}
    assert len({row["id"] for row in facts["members"]}) == 24
    assert json.loads(json.dumps(facts)) == facts


def test_extremes_are_members() -> None:
    rows = [costs(member) for member in SPACE.enumerate()]
    for extreme in describe_space(SPACE, {}, samples=20, seed=0)["extremes"]:
        member = Architecture.from_dict(extreme["architecture"])
        assert member.id == extreme["id"] and SPACE.contains(member)
        best = min if extreme["which"] == "cheapest" else max
        assert extreme[extreme["cost"]] == costs(member)[extreme["cost"]] == best(x[extreme["cost"]] for x in rows)


def test_several_limits_are_sampled_with_an_interval_that_holds_the_truth() -> None:
    budget = {"params": 1500, "macs": 30_000}
    rows = [costs(member) for member in SPACE.enumerate()]
    truth = sum(all(row[name] <= budget[name] for name in budget) for row in rows) / 24
    facts = describe_space(SPACE, budget, samples=10, seed=0)
    fits = facts["fits"]
    assert not fits["exact"] and fits["low"] <= truth <= fits["high"]
    assert fits["alone"] == {name: sum(row[name] <= budget[name] for row in rows) / 24 for name in budget}
    assert facts == describe_space(SPACE, budget, samples=10, seed=0)
    assert facts != describe_space(SPACE, budget, samples=10, seed=1)
    counted = describe_space(SPACE, budget, samples=100, seed=0)["fits"]
    assert counted["exact"] and counted["share"] == pytest.approx(truth)
    for example in facts["examples"]:
        architecture = Architecture.from_dict(example["architecture"])
        assert architecture.id == example["id"] and SPACE.contains(architecture)
        assert all(example[name] <= limit for name, limit in budget.items())


def test_without_a_budget_nothing_is_said_of_it() -> None:
    facts = describe_space(SPACE, {}, samples=20, seed=0)
    assert facts["fits"] is None and facts["values"] is None
    assert "within" not in space_text(facts)


def test_a_budget_that_nothing_fits() -> None:
    facts = describe_space(SPACE, {"params": 1}, samples=20, seed=0)
    assert facts["fits"]["share"] == 0 and facts["examples"] == []
    least = min(costs(member)["params"] for member in SPACE.enumerate())
    lines = space_text(facts).splitlines()
    where = lines.index("within params <= 1: 0.0% (exact)")
    assert lines[where + 1].startswith(
        f"budget: params 1 leaves nothing of space small: its cheapest architecture has {least:,} (id "
    )


def test_values_that_a_budget_leaves_unused_or_never_hurts() -> None:
    members = list(SPACE.enumerate())
    limit = max(costs(member)["params"] for member in members if member.stages[0].c == 8 and member.stages[1].c == 8)
    facts = describe_space(SPACE, {"params": limit}, samples=20, seed=0)
    for key, wanted in (("unused", False), ("free", True)):
        expected = {
            name: [
                v
                for v in values
                if all((costs(m)["params"] <= limit) is wanted for m in members if SPACE.encode(m)[name] == v)
            ]
            for name, values in SPACE.choices.items()
        }
        assert facts["values"][key] == {name: values for name, values in expected.items() if values}
    least = min(costs(member)["params"] for member in members)
    text = space_text(describe_space(SPACE, {"params": least}, samples=20, seed=0))
    assert "never within the budget: stem.c=16; stages[0].c=16; stages[0].n=2; stages[0].t=2, 3" in text


def test_a_space_as_text() -> None:
    text = space_text(describe_space(SPACE, {"params": 1500, "macs": 20_000}, samples=10, seed=3))
    first, _, how, header, *rows = text.splitlines()
    assert first == "small: 24 architectures (24 distinct networks), 4 choices"
    assert how == "costs of all architectures, exact:"
    assert header.split() == ["min", "5%", "median", "95%", "max"]
    assert [row.split()[0] for row in rows[: len(COSTS)]] == list(COSTS)
    assert len({len(row) for row in [header, *rows[: len(COSTS)]]}) == 1
    assert re.search(r"^within params <= 1,500: \d+\.\d% \(exact\)$", text, re.MULTILINE)
    table = text.splitlines()[-25:]
    assert table[0].split() == ["id", *COSTS, "choices"] and "stem.c=8 stages[0].n=1" in table[1]


def test_a_long_table_of_members_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.report.space.MOST_ROWS", 5)
    lines = space_text(describe_space(SPACE, {}, samples=10, seed=0)).splitlines()
    assert lines[-1] == "... and 19 more, see --json" and lines[-7].startswith("id ")


def test_one_network_is_shown_whole() -> None:
    data = {"name": "one", "resolution": 8, "stem": {"block": "conv", "c": 8}, "head": {"block": "classifier"}}
    data["stages"] = [{"block": "separable", "c": 16}]
    space = Space.from_dict(data)
    member = next(space.enumerate())
    text = space_text(describe_space(space, {}, samples=10, seed=0))
    assert text.startswith("one: one network\n") and text.endswith(member.table()) and member.id in text


def test_what_cannot_be_counted_is_sampled_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.census.ledger.MOST_LAYERS", 1)
    facts = describe_space(SPACE, {"params": 1500}, samples=50, seed=3)
    params = [costs(member)["params"] for member in SPACE.enumerate()]
    truth = sum(value <= 1500 for value in params) / 24
    assert facts["exact"] == [] and facts["extremes"] is None and facts["fits"]["main"] is None
    assert facts["fits"]["low"] <= truth <= facts["fits"]["high"]
    text = space_text(facts)
    assert "50 architectures drawn uniformly, seed 3" in text


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (37, 200), (200, 200)])
def test_wilson_ends_where_the_share_is_z_deviations_away(hits: int, n: int) -> None:
    """The interval's ends p solve |share - p| = z sqrt(p (1 - p) / n)."""
    share, z = hits / n, 1.96
    low, high = wilson(share, n, z)
    assert 0 <= low <= share <= high <= 1
    for p in (low, high):
        assert abs(share - p) == pytest.approx(z * math.sqrt(p * (1 - p) / n), abs=1e-9)


def test_wilson_known_value() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 has 0.2553 to 0.3662."""
    assert wilson(float(Fraction(81, 263)), 263, 1.959964) == pytest.approx((0.2553, 0.3662), abs=5e-5)


# A front


def architectures(count: int, activation: str | None = None) -> list[Architecture]:
    def stage(block: str, c: int, n: int = 1, s: int = 1, **options: Any) -> Stage:
        return Stage.of(block, c, n, s, **options, **({"activation": activation} if activation else {}))

    return [
        Architecture(
            (
                stage("conv", 8),
                stage("bottleneck", 16, 2, 2, t=3, k=5),
                stage("shuffle", 32 + 16 * number, 3, 2, groups=2),
                stage("separable", 64 + 16 * number, 0),
                Stage.of("classifier", 10, dropout=0.1),
            ),
            8,
            1,
        )
        for number in range(count)
    ]


def trials(networks: list[Architecture], accuracies: list[float]) -> pd.DataFrame:
    rows = [
        {
            "number": number,
            "id": network.id,
            "outcome": "trained",
            "accuracy": accuracy,
            "accuracy_std": 0.0,
            "measurements": 1,
            "rung": 1,
            "audited_at": None,
            "confirms": None,
            **costs(network),
            "reason": "",
            "epochs": 1,
            "seconds": 1.5,
            "stages": str(network),
            "rungs": "[]",
            "architecture": json.dumps(network.to_dict()),
        }
        for number, (network, accuracy) in enumerate(zip(networks, accuracies, strict=True))
    ]
    return pd.DataFrame(rows)


FRONT = front_table(trials(architectures(3), [0.5, 0.7, 0.75]), ["accuracy", "params"])


def test_front_view() -> None:
    view, shared = front_view(FRONT, ["accuracy", "flops"])
    assert list(view.columns) == ["", "id", "accuracy", "params", "macs", "flops", "stages"]
    assert list(view["accuracy"]) == ["0.5000", "0.7000", "0.7500"]
    assert sorted(view[""]) == ["", "", "knee"]
    assert list(view["params"]) == [f"{value:,}" for value in FRONT["params"]]
    assert shared == "8px, classifier10 dropout=0.1"
    assert all(text.startswith("conv8 | bottleneck16x2/2 ") for text in view["stages"])
    assert "separable" not in "".join(view["stages"])


def test_a_front_that_was_measured_again_shows_spread_and_number() -> None:
    front = FRONT.assign(measurements=[2, 1, 3], accuracy_std=[0.0125, None, 0.02])
    view, _ = front_view(front, ["accuracy", "params"])
    assert list(view.columns)[2:6] == ["accuracy", "std", "n", "params"]
    assert list(view["std"]) == ["0.0125", "", "0.0200"] and list(view["n"]) == ["2", "1", "3"]


RECEIPT = {
    "candidates": 20,
    "reached": {"1": 20, "2": 8, "3": 5},
    "epochs": {"spent": 66.0, "saved": 114.0, "confirming": 18.0},
    "audit": {"candidates": 15, "trained": 2, "on_front": 0, "lost": [0.0, 0.8419]},
}


def test_receipt_text() -> None:
    assert receipt_text(RECEIPT).splitlines() == [
        "rungs: 20 > 8 > 5 candidates; 66 epochs, 63% saved of 180 to the top; 18 to measure the front again",
        "audit: 2 of 15 that were to be cut were trained on, 0 are on the front "
        "(0% to 84% of all, with 95 % confidence)",
    ]
    none = {"candidates": 15, "trained": 0, "on_front": 0, "lost": None}
    assert "none of the 15" in receipt_text({**RECEIPT, "audit": none})
    assert receipt_text({**RECEIPT, "reached": {"1": 20}}) == ""


@pytest.mark.parametrize(
    ("networks", "shared", "first"),
    [
        (architectures(2, "relu"), "8px, activation=relu, classifier10 dropout=0.1", "conv8 | bott"),
        (
            architectures(1, "relu") + architectures(1, "hardswish"),
            "8px, classifier10 dropout=0.1",
            "activation=relu: ",
        ),
        (architectures(1), "8px, classifier10 dropout=0.1", "conv8 | bott"),
        ([], "", None),
    ],
)
def test_what_networks_share_is_said_once(networks: list[Architecture], shared: str, first: str | None) -> None:
    said, texts = short_stages(networks)
    assert said == shared
    assert len(texts) == len(networks)
    assert first is None or texts[0].startswith(first)
    assert "|" in "".join(texts) or not texts


def test_short_stages_lose_nothing() -> None:
    """Two networks that differ are told apart by what is shown."""
    networks = [*architectures(2), *architectures(2, "relu"), *architectures(1, "relu6")]
    networks.append(Architecture(networks[0].stages, 16, 1))
    _, texts = short_stages(networks)
    assert len(set(texts)) == len({network.id for network in networks})


def test_the_table_without_a_terminal_has_a_line_for_each_network() -> None:
    header, *rows = front_text(FRONT, ["accuracy", "params"], None).splitlines()
    assert header.split() == ["id", "accuracy", "params", "macs", "stages"]
    assert [row.split()[-1] for row in rows[:1]] == ["groups=2"]
    assert len(rows) == 5 and rows[3:] == ["", "all of them: 8px, classifier10 dropout=0.1"]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_keeps_to_the_terminal_and_stages_in_one_piece(width: int) -> None:
    lines = front_text(FRONT, ["accuracy", "params"], width).splitlines()
    assert max(map(len, lines)) <= width
    _, stages = front_view(FRONT, [])[0], front_view(FRONT, [])[0]["stages"]
    for text in stages:
        for stage in text.split(" | "):
            assert any(stage in line for line in lines)


def test_aligned() -> None:
    assert aligned([["", "id", "n"], ["a", "12", "1,000"], ["bc", "3", "20"]]) == [
        "    id      n",
        "a   12  1,000",
        "bc  3      20",
    ]


def test_csv_and_records_have_the_same_columns_and_values(tmp_path: Path) -> None:
    front_csv(FRONT, tmp_path / "front.csv")
    records = front_records(FRONT)
    assert pd.DataFrame(records).equals(pd.read_csv(tmp_path / "front.csv"))
    assert list(records[0]) == [
        *"number id accuracy accuracy_std measurements".split(),
        *COSTS,
        *"epochs seconds stages knee".split(),
    ]
    assert json.loads(json.dumps(records)) == records


def test_columns_keep_their_kinds_beside_each_other() -> None:
    header, first, *_ = columns_text(FRONT, ["accuracy", "number", "epochs", "params", "knee"]).splitlines()
    assert header.split() == ["accuracy", "number", "epochs", "params", "knee"]
    row = FRONT.iloc[0]
    assert first.split() == ["0.5000", str(row["number"]), "1", f"{row['params']:,}", str(row["knee"]).lower()]
    assert columns_text(FRONT, ["accuracy", "number"]).splitlines()[1].split() == ["0.5000", "0"]


def test_an_empty_front(tmp_path: Path) -> None:
    empty = FRONT.iloc[:0]
    front_csv(empty, tmp_path / "front.csv")
    assert front_records(empty) == [] and (tmp_path / "front.csv").read_text().startswith("number,id,")


def test_what_left_the_front_leaves_its_folder(tmp_path: Path) -> None:
    run = searched(tmp_path, "one", trials=4)
    save_tables(run)
    (stale := run.folder / "front" / "000000000000.yaml").touch()
    _, front = save_tables(run)
    assert {file.stem for file in stale.parent.iterdir()} == set(front["id"])


# The picture


def study(objectives: list[str], **budget: float) -> StudyConfig:
    data = {"name": "made", "space": "x", "data": {"source": "digits"}, "proxy": {"rungs": [1]}, "trials": 40}
    return StudyConfig.of({**data, "objectives": objectives, "budget": budget}, "f")


def made(low: float, high: float, count: int = 40) -> pd.DataFrame:
    """Trials with parameters from `low` to `high`."""
    rng = np.random.default_rng(0)
    params = np.geomspace(low, high, count).astype(int)
    accuracy = 0.9 - 0.3 * (params / low) ** -0.3 - rng.uniform(0, 0.05, count)
    return pd.DataFrame(
        {
            "id": [f"{number:012x}" for number in range(count)],
            "outcome": "trained",
            "accuracy": accuracy,
            "params": params,
            "macs": params * rng.integers(20, 60, count),
            "flops": 2 * params,
            **{name: rng.integers(10_000, 90_000, count) for name in COSTS if name.endswith("_bytes")},
        }
    )


COSTS_SHOWN = [["params"], ["params", "macs"], ["params", "macs", "peak_memory_bytes"]]


@pytest.mark.parametrize("names", COSTS_SHOWN, ids=len)
def test_the_picture_has_a_panel_for_each_cost(names: list[str], tmp_path: Path) -> None:
    table, objectives = made(2e3, 4e5), ["accuracy", *names]
    front = front_table(table, objectives)
    figure = draw_front(study(objectives, params=363_000), table, front)
    assert [axis.get_xlabel() for axis in figure.axes] == names
    assert figure.get_suptitle() == "made"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["trained (40)", f"front ({len(front)})", "knee", "budget"]
    figure.draw_without_rendering()
    assert not any(figure.legends[0].get_window_extent().overlaps(axis.get_window_extent()) for axis in figure.axes)
    plot_front(study(objectives, params=363_000), table, front, tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as image:
        assert image.width >= 450 * (len(names) + 1) and image.height >= 600


@pytest.mark.parametrize("kind", FORMATS)
def test_the_formats_of_the_picture(kind: str, tmp_path: Path) -> None:
    table = made(2e3, 4e5, 5)
    plot_front(study(["accuracy", "params"]), table, front_table(table, ["accuracy", "params"]), tmp_path / f"x.{kind}")
    assert (tmp_path / f"x.{kind}").read_bytes()[:5] in {b"\x89PNG\r", b"<?xml", b"%PDF-"}
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{kind}"]


@pytest.mark.parametrize(
    ("low", "high"),
    [(2e3, 4e5), (21e3, 34e3), (3.1e4, 9.3e4), (1e4, 1e5), (1e6, 1.05e6), (1e2, 5e7), (5e3, 5e3)],
)
def test_the_ticks_are_readable(low: float, high: float) -> None:
    table = made(low, high)
    figure = draw_front(study(["accuracy", "params"]), table, front_table(table, ["accuracy", "params"]))
    figure.draw_without_rendering()
    axis = figure.axes[0]
    left, right = axis.get_xlim()
    places = zip(axis.get_xticklabels(), axis.get_xticks(), strict=True)
    ticks = [tick for tick, place in places if left <= place <= right]
    texts = [tick.get_text() for tick in ticks]
    assert len(texts) == len(set(texts)) >= 3
    assert all(re.fullmatch(r"\d+(\.\d+)?[kMG]?", text) for text in texts)
    boxes = [tick.get_window_extent() for tick in ticks]
    assert not any(a.overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize(
    ("number", "text"), [(0.5, "0.5"), (200, "200"), (2000, "2k"), (363e3, "363k"), (1.05e6, "1.05M"), (2e9, "2G")]
)
def test_short_number(number: float, text: str) -> None:
    assert short_number(number) == text


# Progress


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    """What is written to stderr; a terminal of 80 columns if the parameter says so."""
    out, terminal = io.StringIO(), bool(request.param)

    def console(**settings: Any) -> Console:
        settings.pop("stderr")
        return Console(file=out, force_terminal=terminal, width=80, color_system=None, **settings)

    monkeypatch.setattr(progress_module, "Console", console)
    monkeypatch.setenv("TERM", "xterm")
    return out


def searching(size: int = 120, trials: int = 4, before: int = 0) -> Any:
    trial = SimpleNamespace(user_attrs={"outcome": "trained"})
    return SimpleNamespace(
        space=SimpleNamespace(name="tiny", size=size),
        config=SimpleNamespace(trials=trials, workers=2, objectives=["accuracy", "params"]),
        pending={},
        executor=SimpleNamespace(workers=2),
        run=SimpleNamespace(folder="runs/made"),
        study=SimpleNamespace(get_trials=lambda deepcopy: [trial] * before),
        record={},
        trained=before,
    )


def tell(watch: SearchWatch, study: Any, outcome: str, accuracy: float | None = None, seconds: float = 60.0) -> None:
    told = Told(1, f"{len(study.record):012x}", outcome, accuracy, {"params": 1234, "macs": 56789}, seconds, "why")
    study.record[told.id] = told
    study.trained += outcome == "trained"
    watch.told(told)


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_a_search_in_a_file_is_one_plain_line_per_candidate(screen: io.StringIO) -> None:
    study = searching()
    with SearchWatch() as watch:
        watch.start(study)
        tell(watch, study, "over budget")
        tell(watch, study, "trained", 0.5)
        tell(watch, study, "failed")
        tell(watch, study, "trained", 0.4, seconds=240)
    assert screen.getvalue().splitlines() == [
        "space tiny: 120 architectures; 4 candidates to train; results in runs/made",
        "1/4 trained 000000000001: accuracy 0.5000, 1,234 params, 56,789 MACs | best 0.5000 at 1,234 params"
        " | 60 s each, 2 min left",
        "1/4 failed 000000000002: why, 1,234 params, 56,789 MACs | best 0.5000 at 1,234 params | 60 s each, 2 min left",
        "2/4 trained 000000000003: accuracy 0.4000, 1,234 params, 56,789 MACs | best 0.5000 at 1,234 params"
        " | 2 min each, 2 min left",
    ]


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_the_time_left_is_that_of_the_workers_there_are(screen: io.StringIO) -> None:
    study = searching()
    study.executor.workers = 1  # whatever the study asks for
    with SearchWatch() as watch:
        watch.start(study)
        tell(watch, study, "trained", 0.5)
    experiment = SimpleNamespace(members=[0] * 4, done=0, workers=2, executor="serial", folder="runs/made-trust")
    with TrustWatch() as trust:
        trust.start(experiment)  # type: ignore[arg-type]
        trust.step(Step("abc", "short", Measurement(accuracy=0.5, epochs=8, seconds=4.0), 2, 8, 400))
    _, searched, _, trusted = screen.getvalue().splitlines()
    assert searched.endswith("60 s each, 3 min left") and trusted.endswith("0.5 s an epoch, 3 min left")


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_a_search_in_a_terminal_is_a_bar_of_one_line(screen: io.StringIO) -> None:
    study = searching(trials=400)
    with SearchWatch() as watch:
        watch.start(study)
        for _ in range(12):
            tell(watch, study, "over budget")
        tell(watch, study, "trained", 0.5)
    last = screen.getvalue().rstrip("\n").rpartition("\x1b[2K")[2]
    assert last.split()[0] == "1/400"
    assert "best 0.5000 at 1,234 params | 60 s each, 3.3 h left" in last
    assert "not trained" not in last and len(last.partition("\x1b[?")[0].rstrip()) <= 80


def test_a_sketch_of_a_front() -> None:
    assert sketch([100, 1000, 10_000, 10_000], [0.5, 0.75, 1.0, 0.5], "params", 40, 5) == [
        " 1.0000 │                              ◆",
        "        │",
        "        │               ◆",
        "        │",
        " 0.5000 │◆                             ·",
        "        └───────────────────────────────",
        "         100                  10k params",
    ]
    assert sketch([100], [0.5], "params", 40) == sketch([1, 2], [0.5, 0.6], "params", 20) == []


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_a_search_in_a_tall_terminal_shows_its_front(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searching(trials=400)
    for lines, shown in ((10, False), (40, True)):
        monkeypatch.setenv("LINES", str(lines))
        with SearchWatch() as watch:
            watch.start(study)
            tell(watch, study, "trained", 0.5)
            study.record["other"] = replace(study.record[f"{0:012x}"], accuracy=0.6, costs={"params": 5000, "macs": 1})
            tell(watch, study, "trained", 0.5)
        assert ("◆" in screen.getvalue()) == shown
    assert "0 in training" in screen.getvalue()


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_the_front_is_drawn_anew_for_candidates_alone(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    study, drawn = searching(trials=400), []
    monkeypatch.setenv("LINES", "40")
    monkeypatch.setattr(progress_module, "sketch", lambda costs, *rest: drawn.append(len(costs)) or [])
    with SearchWatch() as watch:
        watch.start(study)
        for outcome in ("impossible", "trained", "over budget", "repeated", "failed", "cut", "impossible"):
            tell(watch, study, outcome, 0.5)
    assert drawn == [1, 1, 1]


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_a_search_that_cuts_and_measures_again_line_by_line(screen: io.StringIO) -> None:
    study = searching(size=10**12)
    with SearchWatch() as watch:
        watch.start(study)
        told = Told(
            1, "abc", "cut", 0.4, {"params": 1234, "macs": 56789}, 60.0, "0.2 at rung 1, less than 0.3: behind 0"
        )
        watch.told(told)
        watch.told(replace(told, outcome="confirmation", accuracy=0.5, confirms=0))
    assert screen.getvalue().splitlines()[1:] == [
        "0/4 cut abc: 0.2 at rung 1, less than 0.3: behind 0, 1,234 params, 56,789 MACs | 60 s each, 2 min left",
        "0/4 confirmation abc: accuracy 0.5000, 1,234 params, 56,789 MACs | measuring the front again",
    ]


@pytest.mark.parametrize("screen", [False, True], indirect=True)
def test_a_search_that_is_done_shows_no_bar(screen: io.StringIO) -> None:
    with SearchWatch() as watch:
        watch.start(searching(size=10**12, before=4))
    line = "space tiny: 1e+12 architectures; 4 of 4 candidates were trained before; results in runs/made"
    assert screen.getvalue() == line + "\n"


EPOCH = Epoch(2, 0.1, 1.25, 0.5, None, None, 30.0)


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_a_training_in_a_file(screen: io.StringIO) -> None:
    with TrainingWatch([(4, 1.0)]) as watch:
        watch.epoch(EPOCH)
    assert screen.getvalue() == "epoch 2/4: loss 1.250, accuracy 0.5000 | 30 s each, 60 s left\n"


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_a_training_at_rising_resolution_says_what_the_dearer_epochs_will_take(screen: io.StringIO) -> None:
    retrain = RetrainConfig(epochs=4, progressive=[ProgressConfig(until=0.5, resolution=0.5)])
    with TrainingWatch(retrain.parts(4)) as watch:
        watch.epoch(replace(EPOCH, epoch=1, seconds=5.0))
        watch.epoch(replace(EPOCH, epoch=3, seconds=20.0))
    one, three = screen.getvalue().splitlines()
    assert one.endswith("5 s each, 45 s left") and three.endswith("20 s each, 20 s left")


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_a_training_in_a_terminal(screen: io.StringIO) -> None:
    with TrainingWatch([(4, 1.0)]) as watch:
        assert "0/4" in screen.getvalue()
        watch.epoch(EPOCH)
    last = screen.getvalue().rpartition("\x1b[2K")[2]
    assert "2/4" in last and "loss 1.250, accuracy 0.5000 | 30 s each, 60 s left" in last


@pytest.mark.parametrize("screen", [False], indirect=True)
def test_trainings_of_two_kinds_line_by_line(screen: io.StringIO) -> None:
    folder = SimpleNamespace(members=[0] * 4, done=1, workers=2, executor="processes", folder="runs/made-trust")
    found = Measurement(accuracy=0.5, epochs=8, seconds=4.0)
    with TrustWatch() as watch:
        watch.start(folder)  # type: ignore[arg-type]
        watch.step(Step("abc", "short", found, 2, 8, 400))
        watch.step(Step("def", "long", Measurement(failure="diverged: at lr 9", seconds=0.0), 3, 8, 100))
    assert screen.getvalue().splitlines() == [
        "4 candidates, each trained short and long, 1 of 8 before; results in runs/made-trust",
        "2/8 short abc: accuracy 0.5000 | 0.5 s an epoch, 2 min left",
        "3/8 long def: failed: diverged: at lr 9 | 0.5 s an epoch, 25 s left",
    ]


@pytest.mark.parametrize("screen", [True], indirect=True)
def test_trainings_of_two_kinds_in_a_terminal(screen: io.StringIO) -> None:
    with TrustWatch() as watch:
        watch.step(Step("abc", "short", Measurement(accuracy=0.5, epochs=8, seconds=4.0), 2, 8, 40))
    last = screen.getvalue().rpartition("\x1b[2K")[2]
    assert "2/8" in last and "short abc: accuracy 0.5000" in last


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1.5 h"), (86400, "24.0 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# Runs side by side


def searched(folder: Path, name: str, **changes: Any) -> Run:
    file = fakes.write_study(folder / name, **{"name": name, "trials": 12, **changes})
    return fakes.search(file, folder / name / "run", fakes.Tabular(folder / f"{name}_calls", seconds=0.001))


def test_runs_side_by_side(tmp_path: Path) -> None:
    one = searched(tmp_path, "one", proxy={"rungs": [1], "confirm": 1})
    other = searched(tmp_path, "other", trials=40, sampler={"name": "random", "seed": 1})
    facts = compare_runs([one, other])
    names, runs = [str(one.folder), str(other.folder)], list(facts["runs"].values())
    assert list(facts["runs"]) == names and facts["objectives"] == ["accuracy", "params"]
    for run, found in zip((one, other), runs, strict=True):
        seconds, shares = zip(*found["curve"], strict=True)
        assert list(seconds) == sorted(seconds) and list(shares) == sorted(set(shares)) and 0 < shares[-1] <= 1
        assert found["seconds_to"][str(run.folder)] == seconds[-1]
        assert found["front"] == len(run.front())
    assert runs[0]["again"] == pytest.approx(runs[0]["curve"][-1][1]) and runs[1]["again"] is None
    ends = [found["curve"][-1][1] for found in runs]
    worse = ends.index(min(ends))
    assert runs[worse]["seconds_to"][names[1 - worse]] is None or ends[0] == ends[1]
    table = pd.concat([run.trials() for run in (one, other)])
    trained = table[table["outcome"] == "trained"]
    accuracies, params = trained["accuracy"], trained["params"]
    beyond = [accuracies.min() - 0.1 * np.ptp(accuracies), params.max() + 0.1 * np.ptp(params)]
    assert facts["reference"] == pytest.approx(beyond)
    text = compare_text(facts)
    assert "never" in text and all(name in text for name in names) and max(map(len, text.splitlines())) < 300
    plot_compare(facts, tmp_path / "x.svg")
    assert "<svg" in (tmp_path / "x.svg").read_text()


def test_time_between_two_sittings_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does that of a candidate that was in training when the first ended."""
    run = searched(tmp_path, "one", trials=4)
    before = compare_runs([run])["runs"][str(run.folder)]["hours"]
    trials, late = run.all_trials(), timedelta(hours=5)
    sitting = trials[2].datetime_complete
    assert sitting is not None
    for number, trial in enumerate(trials[2:]):
        assert trial.datetime_start and trial.datetime_complete
        trial.datetime_start += late if number else timedelta()
        trial.datetime_complete += late
    monkeypatch.setattr(Run, "record", lambda self: (trials, [0.0, (sitting + late).timestamp() - 0.01], ""))
    assert compare_runs([run])["runs"][str(run.folder)]["hours"] == pytest.approx(before, abs=1e-3)


def test_a_run_of_one_candidate_has_a_hypervolume(tmp_path: Path) -> None:
    run = searched(tmp_path, "one", trials=1)
    assert compare_runs([run])["runs"][str(run.folder)]["curve"][-1][1] == 1.0


def test_runs_say_where_they_measure_otherwise(tmp_path: Path) -> None:
    rungs = {"one": [1], "other": [2]}
    facts = compare_runs([searched(tmp_path, name, trials=2, proxy={"rungs": rungs[name]}) for name in rungs])
    assert list(facts["differences"]) == ["proxy.rungs"]
    assert "they differ in proxy.rungs: " in compare_text(facts)
    timed = {"objectives": ["accuracy", "latency_ms"], "proxy": {"rungs": [1, 3, 9]}}
    runs = []
    for threads in (1, 2):
        file = fakes.write_study(tmp_path / str(threads), **timed, latency={"runtime": "eager", "threads": threads})
        runs.append(fakes.recorded(file, tmp_path / str(threads) / "run", 4))
    assert list(compare_runs(runs)["differences"]) == ["latency"]


def test_runs_that_cannot_be_compared(tmp_path: Path) -> None:
    one = searched(tmp_path, "one")
    other = searched(tmp_path, "other", objectives=["accuracy", "macs"])
    with pytest.raises(InputError, match=r"its objectives are .*macs.*but must be .*params"):
        compare_runs([one, other])
    (empty := Run(tmp_path / "empty")).folder.mkdir()
    (empty.folder / "study.yaml").write_text((one.folder / "study.yaml").read_text())
    with pytest.raises(InputError, match="the search has not begun"):
        compare_runs([one, empty])
