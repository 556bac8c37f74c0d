"""What a short training is worth: the arithmetic against scipy, the candidates, and an experiment that is stopped."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pandas as pd
import pytest
from fakes import SIX, TOY
from PIL import Image
from scipy.stats import bootstrap, kendalltau

from nas.census import Feasible
from nas.cli import main
from nas.costs import costs
from nas.evaluation import Evaluator, Job, Measurement, ProxyTraining
from nas.executors import EXECUTORS
from nas.executors.pace import FLOOR_SECONDS
from nas.executors.serial import Serial
from nas.inputs import InputError, parse_yaml
from nas.report.trust import plot_trust, trust_text
from nas.scores import SCORES
from nas.space import Space
from nas.training import Diverged
from nas.training.loop import _Run
from nas.trust import Candidate, Step, trust
from nas.trust.candidates import evenly, spread
from nas.trust.ranking import RESAMPLES, interval, ladder, rank, rankings, tau_b, verdict


@pytest.fixture(autouse=True, scope="module")
def _quick() -> Iterator[None]:
    """Processes are killed here, not machines: what is written need not reach the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


# Arithmetic

HEIGHTS = [0.41, 0.52, 0.52, 0.63, 0.35, 0.70, 0.52, 0.88]
TABLES = {
    "alike": (HEIGHTS, HEIGHTS),
    "reversed": (HEIGHTS, [-x for x in HEIGHTS]),
    "ties in one": (HEIGHTS, [1, 2, 3, 4, 5, 6, 7, 8]),
    "ties in both": (HEIGHTS, [1, 2, 2, 1, 1, 3, 2, 2]),
    "large": (HEIGHTS, [1e300, 1, -1e300, 2, 1e-300, 3, 4, 5]),
}


@pytest.mark.parametrize(("x", "y"), TABLES.values(), ids=TABLES)
def test_tau_is_that_of_scipy(x: list[float], y: list[float]) -> None:
    assert tau_b(x, y) == pytest.approx(kendalltau(x, y).statistic)
    counts = [[1] * 8, [2, 0, 1, 1, 3, 0, 1, 0], [0, 0, 0, 1, 0, 0, 6, 1]]
    repeated = [kendalltau(np.repeat(x, each), np.repeat(y, each)).statistic for each in counts]
    np.testing.assert_allclose(tau_b(x, y, counts), repeated)


def test_tau_by_hand() -> None:
    """Of the six pairs five agree and one does not; with a tie in x five are left, in y six."""
    assert tau_b([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx((5 - 1) / 6)
    assert tau_b([1, 2, 2, 4], [1, 3, 2, 4]) == pytest.approx(5 / math.sqrt(5 * 6))
    for nothing in ([1, 1, 1], [1, math.nan, 2]):
        assert math.isnan(tau_b(nothing, [1, 2, 3]))


def test_the_interval_is_that_of_scipys_bootstrap() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=14)
    y = x + rng.normal(size=14)
    low, high = interval(list(x), list(y), seed=0)
    theirs = bootstrap(
        (x, y),
        lambda x, y: kendalltau(x, y).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=500,
        rng=1,
    ).confidence_interval
    assert low == pytest.approx(theirs.low, abs=0.05) and high == pytest.approx(theirs.high, abs=0.05)
    assert (low, high) == interval(list(x), list(y), seed=0) != interval(list(x), list(y), seed=1)
    assert interval([1, 2, 3, 4], [1, 2, 3, 4], 0) == (1, 1) and RESAMPLES == 2000
    assert interval([1, 1, 1, 2], [1, 2, 3, 4], 0)[0] <= 0


def test_a_ranking_says_what_is_not_defined() -> None:
    x, y = [1.0, 2.0, 3.0, 5.0, 4.0, 6.0], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    found = rank("zen", 0, x, y, 1.5, seed=0)
    assert (found.tau, found.tau_top) == (pytest.approx(13 / 15), pytest.approx(1 / 3))
    assert found.low is not None and found.high is not None and found.low < 13 / 15 <= found.high
    for signal_ in ([1.0] * 6, [*x[:5], math.nan]):
        none = rank("zen", 0, signal_, y, 1.5, seed=0)
        assert (none.tau, none.low, none.high) == (None, None, None) and not none.above(-1)
    assert rank("zen", 0, x, [*y[:3], 0.9, 0.9, 0.9], 1.5, seed=0).tau_top is None


LADDERS = [
    *((1, 1, [1]), (1, 2, [1, 2]), (1, 8, [1, 3, 8]), (1, 9, [1, 3, 9])),
    *((2, 8, [2, 8]), (7, 8, [7, 8]), (2, 60, [2, 6, 19, 60])),
]


@pytest.mark.parametrize(("first", "last", "rungs"), LADDERS)
def test_a_ladder_is_geometric_and_ends_at_the_last(first: int, last: int, rungs: list[int]) -> None:
    assert ladder(first, last) == rungs


def measured(curves: list[list[float]], long: list[float]) -> list[Candidate]:
    scores = {"params": (5.0, 0.1), "naswot": (None, 0.2)}
    return [
        Candidate(
            f"id{i}", {}, curve, [2.0 * e for e in range(1, len(curve) + 1)], found, 9.0, scores | {"zen": (i, 0.3)}
        )
        for i, (curve, found) in enumerate(zip(curves, long, strict=True))
    ]


def test_the_verdict_is_the_shortest_rung_whose_interval_lies_above() -> None:
    long = [0.1 * i for i in range(10)]
    noise = np.random.default_rng(0).permutation(10)
    found = measured([[float(noise[i]), x, x] for i, x in enumerate(long)], long)
    facts = verdict(found, 0.5, seed=0)
    rungs = [("epoch 1", 1, 2), ("epoch 2", 2, 4), ("epoch 3", 3, 6)]
    assert [(x["name"], x["epochs"], x["seconds"]) for x in facts["rungs"]] == rungs
    assert facts["rungs"][0]["low"] < 0.5 and facts["rungs"][1]["low"] == facts["rungs"][1]["tau"] == 1
    assert (facts["trusted"], facts["recommended"], facts["advice"]) == (2, [2, 3], None)
    assert facts["trusted_scores"] == ["zen"]
    assert [(x["name"], x["tau"], x["seconds"]) for x in facts["scores"]] == [
        ("params", None, pytest.approx(0.1)),
        ("naswot", None, pytest.approx(0.2)),
        ("zen", 1, pytest.approx(0.3)),
    ]
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert rankings(found, 0)[0][0].low == facts["rungs"][0]["low"]


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        ([0.3] * 6, "tells no two candidates apart"),
        ([1, 2, 3, 4, 6, 5], "more --candidates"),
        ([6, 2, 1, 3, 5, 4], "try more epochs"),
    ],
)
def test_where_no_rung_is_trusted_it_says_what_to_try(curve: list[float], says: str) -> None:
    facts = verdict(measured([[x] for x in curve], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.8, seed=0)
    assert facts["trusted"] is facts["recommended"] is None and says in facts["advice"]


ABOUT = {
    "study": "toy",
    "candidates": 6,
    "cost": "params",
    "least_cost": 1000,
    "most_cost": 2000,
    "failed": [],
    "least_accuracy": 0.1,
    "most_accuracy": 0.6,
    "long_epochs": 3,
    "long_seconds": 9.0,
}


def test_the_text_ends_with_what_to_do() -> None:
    long = [0.1 * i for i in range(10)]
    good, bad = [[x, x] for x in long], [[x, -x] for x in long]
    texts = [trust_text(ABOUT | verdict(measured(curves, long), 0.5, seed=0)) for curves in (good, bad)]
    first = "epoch 1 is the first with its interval above 0.5; in the study: proxy: {rungs: [1, 2], ...}"
    last = "above it without any training: zen"
    assert texts[0].splitlines()[-3:] == ["", first, last]
    but = "but that of epoch 2, which a search ends with, is not: more --candidates, in a new folder, may tell"
    assert texts[1].splitlines()[-3:] == [first, but, last]
    assert texts[0].splitlines()[0] == (
        "toy: 6 candidates of 1,000 to 2,000 params; 3 epochs (9 s each) lead to accuracies of 0.1000 to 0.6000"
    )
    assert texts[0].splitlines()[3].split() == ["epoch", "1", "1.00", "1.00", "to", "1.00", "1.00", "2"]
    assert texts[0].splitlines()[5].split() == ["params", "-", "-", "to", "-", "-", "0.1"]


@pytest.mark.parametrize("curve", [[0.3] * 6, [1, 2, 3, 4, 6, 5]])
def test_a_picture_shows_what_is_defined(tmp_path: Path, curve: list[float]) -> None:
    facts = verdict(measured([[x] for x in curve], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), 0.5, seed=0)
    plot_trust(ABOUT | facts, tmp_path / "trust.svg")
    assert (tmp_path / "trust.svg").read_text().startswith("<?xml")


# Candidates


def test_candidates_are_spread_evenly_distinct_and_within_the_budget() -> None:
    assert evenly([5, 1, 9, 2, 8, 1], 3) == [1, 0, 2] and evenly([1, 1, 1], 3) == [0, 1, 2]
    feasible = Feasible(Space.from_dict(parse_yaml(TOY, "toy"), "toy", 1, 10), {"params": 3000})
    members = spread(feasible, "params", 8, seed=0)
    known = [costs(member)["params"] for member in members]
    assert len({member.id for member in members}) == 8 and known == sorted(known) and known[-1] <= 3000
    gaps = np.diff(known)
    assert gaps.max() < 2 * gaps.mean()
    assert members == spread(feasible, "params", 8, seed=0)
    assert members != spread(feasible, "params", 8, seed=1)


def test_there_must_be_as_many_networks() -> None:
    feasible = Feasible(Space.from_dict(parse_yaml(SIX, "six"), "six", 1, 10), {})
    assert len(spread(feasible, "macs", 6, seed=0)) == 6
    with pytest.raises(InputError, match="--candidates is 7, but must be at most 6, the distinct networks"):
        spread(feasible, "macs", 7, seed=0)


# The experiment

RECIPE = {"lr": 0.1, "batch_size": 16}
EPOCHS = 4 * (2 + 3)


def write_study(folder: Path) -> Path:
    """A study on 160 images of 8 x 8, half of them to validate on: four classes of noise on one pixel each."""
    rng = np.random.default_rng(0)
    for kind, part, number in product(range(4), ("train", "test"), range(40)):
        pixels = rng.integers(0, 120, (8, 8), np.uint8)
        pixels[kind, kind] += 100
        file = folder / "images" / part / str(kind) / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    return fakes.write_study(
        folder,
        data={"source": "imagefolder", "root": "images", "validation": 0.5},
        budget={"params": 2500},
        proxy={"rungs": [1, 2], "recipe": RECIPE},
        retrain={"epochs": 3, "recipe": {**RECIPE, "ema": 0.9}},
    )


def called(folder: Path, *more: str) -> tuple[int, str, str]:
    command = ["trust", str(folder / "study.yaml"), "--run", str(folder / "run"), "--candidates", "4", *more]
    with pytest.MonkeyPatch.context() as patch:
        out, err = io.StringIO(), io.StringIO()
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        return main(command), out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    """The folder of a study and of its experiment, and what the command said."""
    folder = tmp_path_factory.mktemp("trust")
    write_study(folder)
    return folder, called(folder)


@pytest.fixture
def again(finished: tuple[Path, tuple[int, str, str]], tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished[0], tmp_path / "again"))


class Counted:
    """Counts the epochs that are trained in this process; presses Ctrl-C once, in front of epoch number `stop`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stop: int | None = None) -> None:
        self.epochs, self.stop, epoch = 0, stop, _Run.epoch

        def counted(run: _Run, number: int, validate: bool) -> Any:
            if self.epochs == self.stop:
                self.stop = None
                raise KeyboardInterrupt
            self.epochs += 1
            return epoch(run, number, validate)

        monkeypatch.setattr(_Run, "epoch", counted)


def accuracies(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "run/candidates.csv")
    return table[[name for name in table.columns if "seconds" not in name]]


def test_an_experiment_says_what_the_proxy_is_worth(finished: tuple[Path, tuple[int, str, str]]) -> None:
    folder, (status, out, err) = finished
    assert status == 0, err
    table = pd.read_csv(folder / "run/trust.csv")
    assert list(table["name"]) == ["epoch 1", "epoch 2", *SCORES]
    candidates = pd.read_csv(folder / "run/candidates.csv")
    for name, column in (("epoch 1", "accuracy.1"), ("epoch 2", "accuracy.2"), ("zen", "score.zen")):
        row = table.set_index("name").loc[name]
        tau = kendalltau(candidates[column], candidates["long_accuracy"]).statistic
        assert row["tau"] == pytest.approx(tau, nan_ok=True)
    assert (candidates["seconds.1"] < candidates["seconds.2"]).all() and (candidates["params"] <= 2500).all()
    lines = out.splitlines()
    assert lines[0].startswith("toy: 4 candidates of ") and " params; 3 epochs (" in lines[0]
    assert [line.split("  ")[0].strip() for line in lines[3:12]] == ["epoch 1", "epoch 2", *SCORES]
    ended = [re.match(r"(\d)/8 (short|long) [0-9a-f]{12}: accuracy 0\.", line) for line in err.splitlines()[1:]]
    assert [match.groups() for match in ended if match] == [(str(n), "short" if n < 5 else "long") for n in range(1, 9)]
    assert json.loads((folder / "run/trust.json").read_text())["rungs"][0]["name"] == "epoch 1"
    assert (folder / "run/trust.png").read_bytes().startswith(b"\x89PNG")
    assert not list((folder / "run").rglob("checkpoint*.pt"))


def test_what_is_finished_is_not_trained_again(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, counted = accuracies(again), Counted(monkeypatch)
    status, out, err = called(again, "--json", "--tau", "-0.99", "--set", "proxy.rungs=[2]")
    assert status == 0 and not counted.epochs, err
    assert json.loads(out) == json.loads((again / "run/trust.json").read_text())
    assert json.loads(out)["required_tau"] == -0.99 and "each trained short and long, 8 of 8 before" in err
    pd.testing.assert_frame_equal(accuracies(again), before)


def test_a_study_in_int8_is_judged_in_float32_and_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("open_source", "latency_of"):
        monkeypatch.setattr(f"nas.trust.judge.{name}", lambda *given: None)
    known = measured([[0.1, 0.2]] * 4, [0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr("nas.trust.experiment.Experiment.run", lambda self: known)
    in_int8 = ["latency.runtime=onnxruntime-int8"]
    found = trust(write_study(tmp_path), tmp_path / "run", in_int8, candidates=4)
    assert found.facts["precision"] == "float32"
    assert "study toy: accuracies here are of float32 networks, in its search of int8 ones" in caplog.messages


@pytest.mark.parametrize("stop", [1, 13])
def test_stopped_at_any_epoch_it_goes_on_to_the_same_end(
    finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    write_study(tmp_path)
    file, counted = tmp_path / "study.yaml", Counted(monkeypatch, stop)
    with pytest.raises(KeyboardInterrupt):
        trust(file, tmp_path / "run", candidates=4)
    assert counted.epochs == stop
    found = trust(file, tmp_path / "run", candidates=4)
    assert counted.epochs == EPOCHS
    expected = accuracies(finished[0])
    assert [each.id for each in found.candidates] == list(expected["id"])
    assert [each.long_accuracy for each in found.candidates] == list(expected["long_accuracy"])
    assert [list(each.accuracies) for each in found.candidates] == expected[
        ["accuracy.1", "accuracy.2"]
    ].values.tolist()


def test_killed_it_goes_on(tmp_path: Path) -> None:
    write_study(tmp_path)
    nas = [str(Path(sys.executable).with_name("nas")), "trust", "study.yaml", "--run", "run", "--candidates", "4"]
    with subprocess.Popen(nas, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("3/8"):
                break
        process.send_signal(signal.SIGKILL)
    records = {path: path.read_bytes() for path in (tmp_path / "run/short").glob("*.json")}
    assert len(records) >= 3
    found = trust(tmp_path / "study.yaml", tmp_path / "run", candidates=4)
    assert all(path.read_bytes() == content for path, content in records.items())
    assert len(found.candidates) == 4


class Backwards(Serial):
    """Two workers, of which the second is always done first."""

    def __init__(self, evaluator: Evaluator, workers: int) -> None:
        super().__init__(evaluator)
        self.workers = workers

    def wait(self) -> tuple[Job, Measurement]:
        assert len(self.waiting) <= self.workers == 2
        self.waiting.reverse()
        return super().wait()


def test_workers_end_in_any_order(finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXECUTORS, "processes", Backwards)
    steps: list[Step] = []
    found = trust(
        write_study(tmp_path),
        tmp_path / "run",
        ["workers=2", "executor.name=processes"],
        candidates=4,
        on_step=steps.append,
    )
    expected = accuracies(finished[0])
    assert [each.id for each in found.candidates] == list(expected["id"]) != [step.id for step in steps[:4]]
    assert [each.long_accuracy for each in found.candidates] == list(expected["long_accuracy"])


def test_trainings_have_a_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one worker, too: in a process of its own, which can be ended."""
    limits: list[float] = []

    class Limits(Serial):
        def submit(self, job: Job) -> None:
            limits.append(job.limit_seconds)
            super().submit(job)

    monkeypatch.setitem(EXECUTORS, "processes", Limits)
    trust(write_study(tmp_path), tmp_path / "run", ["executor.name=processes", "time_limit=2"], candidates=4)
    assert len(limits) == 8 and all(FLOOR_SECONDS < limit < FLOOR_SECONDS + 600 for limit in limits)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--candidates", "5"], "candidates is 4 there and 5 now"),
        (["--epochs", "4"], "long.epochs is 3 there and 4 now"),
        (["--set", "sampler.seed=1"], "sampler.seed is 0 there and 1 now"),
        (["--set", "proxy.rungs=[1]"], "short.epochs is 2 there and 1 now"),
        (["--set", "retrain.recipe.lr=0.2"], "long.recipe.lr is 0.1 there and 0.2 now"),
        (["--set", "budget.params=2600"], 'budget is {"params": 2500.0} there and {"params": 2600.0} now'),
        (["--set", "data.seed=1"], "data.seed is 0 there and 1 now"),
    ],
)
def test_other_settings_are_refused_by_name(again: Path, more: list[str], says: str) -> None:
    line = f"nas: {again / 'run'}: was begun with other settings: {says}; choose another folder with --run\n"
    assert called(again, *more) == (2, "", line)


def test_another_space_and_a_damaged_file_are_refused(again: Path) -> None:
    space = again / "space.yaml"
    space.write_text(space.read_text().replace("k: 3, c: [8, 12, 16]}\nstages", "k: 3, c: [8, 12, 16, 20]}\nstages"))
    assert called(again)[2].endswith("run: was begun with another space; choose another folder with --run\n")
    space.write_text(TOY)
    record = next((again / "run/long").glob("*.json"))
    for text in ("{", "[1, 2]", '{"colour": 1}'):
        record.write_text(text)
        status, _, err = called(again)
        assert (status, err) == (2, f"nas: {record}: is damaged; delete it to have it made again\n")


def failing(monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    evaluate = ProxyTraining.evaluate

    def fail(training: ProxyTraining, job: Job) -> Measurement:
        if job.number in numbers:
            raise Diverged("the loss is not finite")
        return evaluate(training, job)

    monkeypatch.setattr(ProxyTraining, "evaluate", fail)


def test_a_candidate_that_fails_is_named_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {2})
    file = write_study(tmp_path)
    steps: list[Step] = []
    found = trust(file, tmp_path / "run", candidates=5, on_step=steps.append)
    assert len(found.candidates) == found.facts["candidates"] == 4
    (left_out,) = found.facts["failed"]
    assert left_out == {"id": steps[2].id, "reason": "diverged: the loss is not finite"}
    assert f"left out, as it failed: {steps[2].id} (diverged: the loss is not finite)" in trust_text(found.facts)
    assert [(step.kind, step.done, step.total) for step in steps] == [
        *(("short", number, 10 if number < 3 else 9) for number in range(1, 6)),
        *(("long", number, 9) for number in range(6, 10)),
    ]
    assert [step.epochs_left for step in steps] == [23, 21, 16, 14, 12, 9, 6, 3, 0]


def test_several_seeds_count_with_their_mean_and_all_their_seconds(tmp_path: Path) -> None:
    found = trust(write_study(tmp_path), tmp_path / "run", ["proxy.seeds=2"], candidates=4)
    first = found.candidates[0]
    curve = json.loads((tmp_path / "run/short" / f"{first.id}.json").read_text())["curve"]
    assert [(row["seed"], row["epoch"]) for row in curve] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    one, other = (curve[index]["validation_accuracy"] for index in (1, 3))
    assert first.accuracies[1] == pytest.approx((one + other) / 2)
    assert first.seconds[1] == pytest.approx(sum(row["seconds"] for row in curve))
    assert json.loads((tmp_path / "run/long" / f"{first.id}.json").read_text())["curve"][0]["seed"] == 2


def test_with_fewer_than_four_left_it_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, {0})
    write_study(tmp_path)
    says = "1 of 4 candidates failed, the last: diverged: the loss is not finite; 3 are left, but there must be 4\n"
    for _ in range(2):
        status, _, err = called(tmp_path)
        assert status == 2 and err.endswith(f"nas: {tmp_path / 'run'}: {says}")
