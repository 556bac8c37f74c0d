"""The search: what is proposed, told and trained; and that a stop at any moment changes nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import optuna
import pandas as pd
import pytest
from fakes import SIX, TOY, Failing, Tabular
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from PIL import Image

from nas.architecture import Architecture
from nas.census import Feasible
from nas.costs import costs
from nas.evaluation import Job, Measurement, Rung
from nas.inputs import InputError, parse_yaml
from nas.run import Run
from nas.samplers import SAMPLERS
from nas.space import Space
from nas.study import search
from nas.study.climbing import Climbing
from nas.study.drawing import Exhausted, draw
from nas.study.record import Candidate
from nas.study.start import _warn_of_chance
from nas.study.study import FAILURES, PATIENCE
from nas.tables import receipt


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, quiet_optuna: None) -> None:
    """Processes are killed here, not machines: what is written need not reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


def toy(text: str = TOY) -> Space:
    return Space.from_dict(parse_yaml(text, "toy"), "toy", 1, 10)


def outcomes(table: pd.DataFrame) -> dict[str, int]:
    return table["outcome"].value_counts().to_dict()


def one_of(outcome: str, run: Run) -> Any:
    """The Optuna trial of the first proposal with an outcome."""
    return next(trial for trial in run.all_trials() if trial.user_attrs.get("outcome") == outcome)


# What is proposed

ASKED = {"name": "tpe", "startup": 1}
"""Proposes what it likes from the second on: also what is impossible or over the budget."""


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_is_trained_twice_and_every_number_is_on_record(tmp_path: Path, sampler: str) -> None:
    file = fakes.write_study(tmp_path, trials=15, budget={"params": 1500}, sampler={"name": sampler})
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    table = run.trials()
    trained = table[table["outcome"] == "trained"]
    assert len(trained) == 15 and trained["id"].is_unique
    assert [line[1] for line in fakes.lines(tmp_path / "calls")] == list(trained["id"])
    assert list(table["number"]) == list(range(len(table)))
    assert (trained["params"] <= 1500).all() and (table.loc[table["outcome"] == "over budget", "params"] > 1500).all()
    for row in trained.itertuples():
        architecture = Architecture.from_json(row.architecture)
        assert (architecture.id, row.params) == (row.id, costs(architecture)["params"])
        assert row.accuracy == pytest.approx(fakes.accuracy(row.id) / 2, abs=0)
    assert not list((tmp_path / "run" / "candidates").iterdir())


def test_a_proposal_over_budget_is_told_with_its_violation_and_never_trained(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, budget={"params": 1200, "macs": "1M"}, sampler=ASKED)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    trial = one_of("over budget", run)
    params = trial.user_attrs["candidate"]["costs"]["params"]
    assert trial.constraints["params"] == pytest.approx(params / 1200 - 1) and trial.constraints["params"] > 0
    assert trial.constraints["macs"] < 0
    assert trial.state == TrialState.COMPLETE and trial.values == [0.0, params]
    assert trial.user_attrs["reason"] == f"params {params} > 1200"
    assert str(trial.number) not in [line[0] for line in fakes.lines(tmp_path / "calls")]
    assert all(value <= 0 for value in one_of("trained", run).constraints.values())


def test_an_impossible_combination_is_told_with_its_reason_and_never_trained(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=15, sampler=ASKED)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    trial = one_of("impossible", run)
    assert trial.state == TrialState.COMPLETE and "groups" in trial.user_attrs["reason"]
    assert trial.constraints == {"possible": 1.0} and trial.values == [0.0, 0.0]
    assert str(trial.number) not in [line[0] for line in fakes.lines(tmp_path / "calls")]


def test_a_repeated_proposal_counts_like_the_first(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, SIX, trials=6, sampler=ASKED)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    trial = one_of("repeated", run)
    twin = next(t for t in run.all_trials() if t.user_attrs["candidate"]["id"] == trial.user_attrs["candidate"]["id"])
    assert twin.user_attrs["outcome"] == "trained" and trial.values == twin.values
    assert trial.user_attrs["reason"] == f"the same network as {twin.number}"


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_small_space_ends_with_a_message(tmp_path: Path, sampler: str) -> None:
    file = fakes.write_study(tmp_path, SIX, trials=20, sampler={"name": sampler})
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    reason = study.search()
    assert reason == (
        "stopped at 6 of 20 candidates: the 6 members of space six hold no new candidate within the budget: "
        "it is exhausted"
    )
    assert len(fakes.lines(tmp_path / "calls")) == 6
    before = len(run.all_trials())
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    assert study.search() == reason
    assert len(run.all_trials()) == before, "a search that is exhausted proposes nothing more"


def test_a_sampler_that_finds_nothing_is_helped_after_a_bounded_number_of_proposals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.study.study.uniform_proposals", lambda name, options: 0)
    file = fakes.write_study(tmp_path, trials=2, budget={"params": 700}, sampler={"name": "random", "seed": 3})
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    numbers = list(run.trials().query("outcome == 'trained'")["number"])
    assert len(numbers) == 2 and max(np.diff([-1, *numbers])) == PATIENCE + 1


def test_draw_is_uniform_over_what_fits_and_is_new() -> None:
    space, rng = toy(), random.Random(0)
    feasible = Feasible(space, {"params": 830})
    fitting = [member for member in space.enumerate() if costs(member)["params"] <= 830]
    seen = {fitting[0].id}
    counts = {member.id: 0 for member in fitting[1:]}
    for _ in range(60 * len(counts)):
        counts[draw(feasible, rng, seen).id] += 1
    assert len(counts) >= 4 and all(30 < count < 95 for count in counts.values()), counts


def test_draw_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    space = toy()
    with pytest.raises(Exhausted, match="the 153 members of space toy hold no new candidate"):
        draw(Feasible(space, {}), random.Random(0), {member.id for member in space.enumerate()})
    within = {member.id for member in space.enumerate() if costs(member)["params"] <= 830}
    says = f"the {len(within)} members within the limit of params of space toy hold no new candidate"
    with pytest.raises(Exhausted, match=says):
        draw(Feasible(space, {"params": 830}), random.Random(0), within)
    monkeypatch.setattr("nas.census.feasible.DRAWS", 100)
    monkeypatch.setattr("nas.study.drawing.DRAWS", 100)
    with pytest.raises(Exhausted, match="100 members drawn of space toy hold no new candidate"):
        draw(Feasible(space, {}), random.Random(0), {member.id for member in space.enumerate()})


@pytest.mark.parametrize(
    "sampler", [{"name": "random"}, {"name": "tpe", "startup": 6}, {"name": "nsga2", "population": 6}]
)
def test_the_first_proposals_are_drawn_from_what_fits_by_seed_and_number(
    tmp_path: Path, sampler: dict[str, Any]
) -> None:
    budget = {"params": 1000}
    file = fakes.write_study(tmp_path, trials=4, budget=budget, sampler={**sampler, "seed": 2})
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    first = list(run.trials()["id"][:6])
    feasible = Feasible(toy(), budget)
    assert first == [draw(feasible, random.Random(f"2/{number}")).id for number in range(6)][: len(first)]
    assert outcomes(run.trials()).keys() <= {"trained", "repeated"}


def test_nothing_is_written_when_nothing_fits(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, budget={"params": 600})
    with pytest.raises(
        InputError, match=r"budget: params 600 leaves nothing of space toy: its cheapest architecture has 674 "
    ):
        search(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Published architectures first


def test_enqueued_architectures_come_first_and_once(tmp_path: Path) -> None:
    members = sorted(toy().enumerate(), key=lambda member: costs(member)["params"])
    small, large = members[10], members[-1]
    file = fakes.write_study(tmp_path, budget={"params": 2000}, trials=3)
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=0))
    with pytest.raises(KeyboardInterrupt):
        study.search([small, large, small])
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    study.search([small, large, members[20]])
    table = run.trials()
    assert list(table["id"][:3]) == [small.id, large.id, members[20].id]
    assert list(table["outcome"][:3]) == ["trained", "over budget", "trained"]
    assert (table["id"] == small.id).sum() == 1 and outcomes(table)["trained"] == 3


def test_enqueue_names_the_file_that_is_not_in_the_space(tmp_path: Path) -> None:
    member = next(toy().enumerate())
    (tmp_path / "in.yaml").write_text(member.to_yaml())
    (tmp_path / "out.yaml").write_text(member.to_yaml().replace("resolution: 8", "resolution: 16"))
    file = fakes.write_study(tmp_path, enqueue=["in.yaml", "out.yaml"])
    with pytest.raises(InputError, match=r"out.yaml: resolution is 16"):
        search(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Failures

REASONS = {
    "raises": "RuntimeError: boom",
    "memory": "out of memory:",
    "says": "would not",
    "nan": "diverged: its accuracy is nan",
}


def test_a_failure_costs_one_candidate_and_says_why(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, SIX, trials=20, sampler={"name": "random", "seed": 8})
    how = dict(enumerate(REASONS))
    run, study = fakes.open_study(file, tmp_path / "run", Failing(tmp_path / "calls", how=how))
    study.search()
    table = run.trials().set_index("number")
    assert table.loc[list(how), "reason"].to_dict() == dict(enumerate(REASONS.values()))
    assert set(table.loc[list(how), "outcome"]) == {"failed"} and table.loc[list(how), "accuracy"].isna().all()
    assert outcomes(table)["trained"] == 2, "six members, four of them failed"
    assert "in evaluate\n" in (run.candidate_folder(0) / "error.txt").read_text()
    assert [folder.name for folder in (run.folder / "candidates").iterdir()] == ["00000"]


def test_a_study_whose_first_candidates_all_fail_stops_and_goes_on_when_the_fault_is_mended(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=4)
    broken = Failing(tmp_path / "calls", how={-1: "raises"})
    with pytest.raises(InputError, match=f"the first {FAILURES} candidates all failed, the last: RuntimeError: boom"):
        fakes.search(file, tmp_path / "run", broken)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    table = run.trials()
    assert (outcomes(table)["failed"], outcomes(table)["trained"]) == (FAILURES, 4)
    failed = set(table.loc[table["outcome"] == "failed", "id"])
    assert failed.isdisjoint(line[1] for line in fakes.lines(tmp_path / "calls"))


def test_a_study_stops_when_candidate_after_candidate_fails(tmp_path: Path) -> None:
    first = 0
    file = fakes.write_study(tmp_path, trials=100)
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=2))
    with pytest.raises(KeyboardInterrupt):
        study.search()
    first = outcomes(run.trials())["trained"]
    with pytest.raises(InputError, match=f"the last {4 * FAILURES} candidates all failed"):
        fakes.search(file, tmp_path / "run", Failing(tmp_path / "calls", how={-1: "says"}))
    assert first == 2 and outcomes(run.trials())["failed"] == 4 * FAILURES


class Full(Tabular):
    def evaluate(self, job: Job) -> Measurement:
        raise OSError(28, "No space left on device")


def test_a_full_disk_stops_the_study_and_costs_no_candidate(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path)
    run, study = fakes.open_study(file, tmp_path / "run", Full(tmp_path / "calls"))
    with pytest.raises(OSError, match="No space left"):
        study.search()
    assert "failed" not in outcomes(run.trials())


class Numpy(Tabular):
    def evaluate(self, job: Job) -> Measurement:
        return Measurement(accuracy=np.float32(0.5), loss=np.float32(1), epochs=1)  # type: ignore[arg-type]


def test_what_is_recorded_is_plain(tmp_path: Path) -> None:
    run = fakes.search(fakes.write_study(tmp_path, trials=1), tmp_path / "run", Numpy(tmp_path / "calls"))
    assert run.trials()["accuracy"].dropna().tolist() == [0.5]


# The images


def write_images(root: Path, train: int) -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("test", 2)):
        for name in ("cat", "dog"):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


@pytest.mark.usefixtures("quiet_optuna")
def test_a_search_goes_on_with_its_images_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "first", train=6)
    data = {"source": "imagefolder", "root": str(tmp_path / "first"), "validation": 4}
    file = fakes.write_study(tmp_path, trials=1, data=data)
    run, _ = search(file, tmp_path / "run")
    others = write_images(tmp_path / "others", train=7)
    (renamed := tmp_path / "renamed").mkdir()
    shutil.copytree(tmp_path / "first", renamed, dirs_exist_ok=True)
    for part in ("train", "test"):
        (renamed / part / "cat").rename(renamed / part / "lynx")
    for root, says in (
        (others, r'images is {"train": 8, "validation": 4, "test": 4} there and {"train": 10, "v'),
        (renamed, r'classes is ["cat", "dog"] there and ["dog", "lynx"] now'),
    ):
        with pytest.raises(InputError, match=f"run: was begun with other images: {re.escape(says)}"):
            search(file, run.folder, {"trials": 2, "data.root": str(root)})
    moved = shutil.move(tmp_path / "first", tmp_path / "moved")
    again, exhausted = search(file, run.folder, {"trials": 2, "data.root": str(moved)})
    assert exhausted is None and (again.trials()["outcome"] == "trained").sum() == 2


# A stop changes nothing


def same(table: pd.DataFrame) -> pd.DataFrame:
    """What a stop must not change: all but the rows of proposals that it cut off, and with them the numbers."""
    formed = table[table["outcome"] != "interrupted"]
    reasons = formed["reason"].str.replace(r"(the same network as|behind) \d+", r"\1 it", regex=True)
    return formed.assign(reason=reasons).drop(columns=["number", "confirms"]).reset_index(drop=True)


@pytest.mark.parametrize(
    "sampler",
    [{"name": "random"}, {"name": "tpe", "startup": 4}, {"name": "nsga2", "population": 4}, {"name": "surrogate"}],
    ids=lambda sampler: sampler["name"],
)
def test_stopped_between_epochs_a_search_ends_with_the_same_table(tmp_path: Path, sampler: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "proxy": {"rungs": [1, 2, 3], "keep": 1, "confirm": 0},
        "budget": {"params": 1500},
        "sampler": sampler,
    }
    file = fakes.write_study(tmp_path, trials=14, **settings)
    whole = fakes.search(file, tmp_path / "whole", Tabular(tmp_path / "whole_calls"))
    stops = [0, 1, 2, 7, 3, 10, 1]
    for after in stops:
        with pytest.raises(KeyboardInterrupt):
            fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=after))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    pd.testing.assert_frame_equal(run.trials(), whole.trials())
    assert [line[:3] for line in fakes.lines(tmp_path / "calls")] == [
        line[:3] for line in fakes.lines(tmp_path / "whole_calls")
    ]
    assert set(fakes.epochs(tmp_path / "calls").values()) == {1} and len(fakes.lines(tmp_path / "calls")) == 14 * 3
    rungs = [trial.user_attrs["rungs"] for trial in run.all_trials() if trial.user_attrs["outcome"] == "trained"]
    assert [[rung["epochs"] for rung in of] for of in rungs] == [[1, 2, 3]] * 14


CUTTING = {"rungs": [1, 2, 4], "keep": 0.2, "audit": 0.3, "confirm": 1}


@pytest.mark.parametrize("workers", [1, 3])
def test_a_search_cuts_audits_and_confirms(tmp_path: Path, workers: int) -> None:
    file = fakes.write_study(tmp_path, trials=60, proxy=CUTTING, workers=workers)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    table, front = run.trials(), run.front()
    candidates = table[table["outcome"].isin(["trained", "cut"])]
    assert len(candidates) == 60 and set(candidates["outcome"]) == {"trained", "cut"}
    cut, audited = table[table["outcome"] == "cut"], table[table["audited_at"].notna()]
    assert len(cut) >= 10 and len(audited) >= 3 and set(audited["outcome"]) == {"trained"}
    assert (cut["rung"] < 3).all() and (table.loc[table["outcome"] == "trained", "rung"] == 3).all()
    assert cut["accuracy"].isna().all() and cut["reason"].str.contains("less than").all()
    spent = sum([1, 2, 4][rung - 1] for rung in candidates["rung"])
    confirmed = table[table["outcome"] == "confirmation"]
    assert sum(fakes.epochs(tmp_path / "calls").values()) == spent + 4 * len(confirmed)
    assert set(front["number"]) <= set(confirmed["confirms"]) and (front["measurements"] == 2).all()
    assert confirmed["confirms"].is_unique and confirmed["rung"].isna().all()
    facts = receipt(table, front, run.config.proxy.ladder())
    assert facts["epochs"] == {"spent": spent, "saved": 240 - spent, "confirming": 4 * len(confirmed)}
    assert facts["audit"]["trained"] == len(audited) and facts["audit"]["candidates"] == len(cut) + len(audited)
    for trial in run.all_trials():
        if trial.user_attrs["outcome"] == "cut":
            assert trial.state == TrialState.COMPLETE
            expected, reached = trial.user_attrs["expected"], trial.user_attrs["rungs"][-1]["accuracy"]
            assert trial.values[0] == expected >= reached - 1e-9


@dataclass(frozen=True)
class Working(Tabular):
    """Says its work: the epochs that a job has not trained yet."""

    def work(self, macs: float, rungs: Sequence[Rung]) -> float:
        return rungs[-1].epochs - (rungs[-2].epochs if len(rungs) > 1 else 0)


def test_each_job_is_paced_by_its_epochs_and_forgotten_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worked, forgotten = [], []
    monkeypatch.setattr("nas.study.study.Pace.note", lambda self, work, seconds: worked.append(work))
    monkeypatch.setattr("nas.executors.serial.Serial.forget", lambda self, folder: forgotten.append(folder))
    file = fakes.write_study(tmp_path, trials=20, proxy=CUTTING, budget={"params": 1500}, sampler=ASKED)
    table = fakes.search(file, tmp_path / "run", Working(tmp_path / "calls")).trials()
    assert sum(worked) == sum(fakes.epochs(tmp_path / "calls").values())
    trained = table["outcome"].isin(["trained", "cut", "failed", "confirmation"])
    assert len(forgotten) == len(set(forgotten)) == trained.sum() < len(table), "or nothing else was proposed"


def test_stopped_between_epochs_a_search_that_cuts_ends_with_the_same_table(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=30, proxy=CUTTING)
    whole = fakes.search(file, tmp_path / "whole", Tabular(tmp_path / "whole_calls"))
    assert {"cut", "confirmation"} < outcomes(whole.trials()).keys() and whole.trials()["audited_at"].notna().any()
    for after in [0, 1, 2, 7, 3, 10, 25, 1, 11, 6]:
        with pytest.raises(KeyboardInterrupt):
            fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=after))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    pd.testing.assert_frame_equal(run.trials(), whole.trials())
    assert fakes.epochs(tmp_path / "calls") == fakes.epochs(tmp_path / "whole_calls")
    again = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    pd.testing.assert_frame_equal(again.trials(), whole.trials())


def test_after_its_hours_a_search_begins_no_candidate_but_measures_again(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=50, proxy={"rungs": [1], "confirm": 1})
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls", seconds=0.2))
    reason = study.search(hours=1 / 3600)
    assert reason is not None and re.fullmatch(r"stopped at \d of 50 candidates: 0.000277778 hours are over", reason)
    counts = outcomes(run.trials())
    assert 1 <= counts["trained"] <= 6 and counts["confirmation"] >= 1
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    assert study.search() is None and outcomes(run.trials())["trained"] == 50


def test_a_candidate_that_was_sent_on_goes_on_whatever_came_in_between(tmp_path: Path) -> None:
    """Stopped with one at its second rung; when it is taken up, others have been measured that would have it cut."""
    file = fakes.write_study(tmp_path, trials=40, proxy={**CUTTING, "audit": 0.0})
    run, study = fakes.open_study(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=15))
    with pytest.raises(KeyboardInterrupt):
        study.search()
    (left,) = [trial for trial in run.all_trials() if trial.state == TrialState.RUNNING]
    candidate = Candidate.of(left)
    if not candidate.rungs:
        candidate.rungs.append({"accuracy": 0.0, "seconds": 0.0})
    measured = len(candidate.rungs)
    climbing = Climbing(run)
    for number in range(100, 140):
        other = replace(candidate, number=number, rungs=[{"accuracy": 0.5 + number / 1000}] * 3)
        climbing.note(other, other.rungs)
    climbing.note(candidate, [{"accuracy": 0.0}] * measured)
    assert climbing.step(replace(candidate, sent_on=measured)).job is not None
    assert climbing.step(replace(candidate, sent_on=measured - 1)).told is not None


def test_a_decision_to_go_on_is_on_record(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=12, proxy=CUTTING)
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    attrs = [trial.user_attrs for trial in run.all_trials() if "rungs" in trial.user_attrs]
    sent = {(each["outcome"], len(each["rungs"]) - each.get("sent_on", 0)) for each in attrs}
    assert sent <= {("trained", 1), ("cut", 1), ("confirmation", 1)}


def test_confirmations_that_fail_are_tried_again_the_next_time(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=6, proxy={"rungs": [1], "confirm": 1})
    fakes.search(file, tmp_path / "run", Failing(tmp_path / "calls", how=dict.fromkeys(range(6, 40), "raises")))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    assert (run.front()["measurements"] == 2).all()


def test_a_confirmation_that_failed_is_tried_again_with_its_own_seed(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=1, proxy={"rungs": [1], "confirm": 2})
    fakes.search(file, tmp_path / "run", Failing(tmp_path / "calls", how={1: "raises"}))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    again = [trial.user_attrs for trial in run.all_trials() if "confirms" in trial.user_attrs]
    assert [(each["confirms"][1], each["outcome"]) for each in again] == [
        (1, "failed"),
        (2, "confirmation"),
        (1, "confirmation"),
    ]
    assert run.front()["measurements"].item() == 3


def test_a_confirmation_that_fails_costs_nothing_but_itself(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=6, proxy={"rungs": [1], "confirm": 1})
    calls = Failing(tmp_path / "calls", how={6: "raises"})
    table = fakes.search(file, tmp_path / "run", calls).trials()
    failed = table[table["outcome"] == "failed"]
    assert list(failed["number"]) == [6] and failed["confirms"].notna().all()
    assert outcomes(table)["trained"] == 6
    assert table.loc[table["number"] == failed["confirms"].item(), "measurements"].item() == 1


def test_rungs_of_another_resolution_are_refused_where_weights_do_not_fit(tmp_path: Path) -> None:
    space = fakes.SIX.replace("separable, c: [8, 16, 24]", "[separable, cse], t: 3, c: [8, 16, 24]")
    proxy = {"rungs": [{"epochs": 1, "resolution": 0.5}, 2]}
    file = fakes.write_study(tmp_path, space=space, proxy=proxy)
    with pytest.raises(InputError, match=r"proxy\.rungs: resolution is \[0\.5, 1\.0\], but must be 1 .*block cse"):
        search(file, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_candidate_trains_on_with_more_and_larger_images(tmp_path: Path) -> None:
    """Through rungs of a rising share and resolution, and killed between: the same as in one go, bit for bit."""
    recipe = {"lr": 0.1, "batch_size": 64}
    proxy = {"rungs": [{"epochs": 1, "share": 0.2, "resolution": 0.5}, {"epochs": 2, "share": 0.5}, 3]}
    file = fakes.write_study(tmp_path, space=fakes.SIX, trials=2, proxy={**proxy, "recipe": recipe, "confirm": 1})
    run, _ = search(file, tmp_path / "run")
    again, _ = search(file, tmp_path / "again")
    timed = ["seconds", "rungs"]
    pd.testing.assert_frame_equal(run.trials().drop(columns=timed), again.trials().drop(columns=timed))
    trained = [trial for trial in run.all_trials() if trial.user_attrs["outcome"] == "trained"]
    for trial in trained:
        assert [rung["epochs"] for rung in trial.user_attrs["rungs"]] == [1, 2, 3]


def told(run: Run) -> list[Any]:
    """What samplers learn from."""
    formed = [trial for trial in run.all_trials() if trial.user_attrs["outcome"] != "interrupted"]
    return [(trial.state, trial.values, trial.params, trial.constraints) for trial in formed]


class Power(BaseException):
    """Is cut."""


@pytest.mark.parametrize(
    "proxy",
    [{"rungs": [1, 2], "keep": 1, "confirm": 0}, {**CUTTING, "rungs": [1, 2], "audit": 0.5}],
    ids=["all", "cut"],
)
def test_stopped_at_any_write_of_the_record_a_search_ends_with_the_same_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: dict[str, Any]
) -> None:
    """Cut behind a random write, as by SIGKILL; the next search behind another, and so on until one gets to the end."""
    members = sorted(toy().enumerate(), key=lambda member: costs(member)["params"])
    first = [members[-1], members[10]]
    sampler = {"name": "nsga2", "population": 2, "seed": 1}
    file = fakes.write_study(
        tmp_path,
        trials=5 if proxy["confirm"] == 0 else 12,
        proxy=proxy,
        budget={"params": 1100},
        sampler=sampler,
        enqueue=[],
    )
    monkeypatch.setattr("nas.study.study.PATIENCE", 4)
    append, left = JournalFileBackend.append_logs, [-1]

    def cut(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        append(self, logs)
        left[0] -= 1
        if left[0] == 0:
            raise Power

    monkeypatch.setattr(JournalFileBackend, "append_logs", cut)
    whole, study = fakes.open_study(file, tmp_path / "whole", Tabular(tmp_path / "whole_calls"))
    study.search(first)
    all_that_can_happen = {"trained", "over budget", "impossible", "repeated"}
    if proxy["confirm"]:
        all_that_can_happen |= {"cut", "confirmation"}
    assert outcomes(whole.trials()).keys() == all_that_can_happen, "or the test leaves something out"
    drawn = [trial for trial in whole.all_trials()[2:] if "fixed_params" in trial.system_attrs]
    assert drawn, "or the test leaves something out"

    cuts = 0
    for seed in range(5):
        rng, folder, calls = random.Random(seed), tmp_path / str(seed), tmp_path / f"calls{seed}"
        while True:
            left[0] = rng.randrange(2, 20)
            try:
                run, study = fakes.open_study(file, folder, Tabular(calls))
                study.search(first)
            except Power:
                cuts += 1
                continue
            left[0] = -1
            break
        pd.testing.assert_frame_equal(same(run.trials()), same(whole.trials()))
        assert told(run) == told(whole)
        assert fakes.epochs(calls) == fakes.epochs(tmp_path / "whole_calls")
        assert not list((folder / "candidates").iterdir())
        assert "interrupted" not in outcomes(run.trials()), "a proposal is on record as a whole or not at all"
    assert cuts > 10


def wait_for(what: str, true: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)


@contextmanager
def driver(file: Path, folder: Path, calls: Path, stall_after: int) -> Iterator[subprocess.Popen[str]]:
    """A search in a process group of its own, which after so many epochs takes a minute for each."""
    command = [sys.executable, fakes.__file__, file, folder, calls, str(stall_after)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def children(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    """Whether a process runs (its status is not that of one that only waits to be read)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_started_again_a_search_loses_nothing(tmp_path: Path, workers: int) -> None:
    """With two workers, one is killed besides, in the second search: that costs the one candidate it trains."""
    calls, folder = tmp_path / "calls", tmp_path / "run"
    settings: dict[str, Any] = {"trials": 8, "proxy": {"rungs": [2, 4], "keep": 1, "confirm": 0}}
    file = fakes.write_study(tmp_path, **settings)
    whole = fakes.search(file, tmp_path / "whole", Tabular(tmp_path / "whole_calls")).trials()
    file = fakes.write_study(tmp_path, **settings, workers=workers)
    with driver(file, folder, calls, 11) as process:
        wait_for("11 epochs", lambda: len(fakes.lines(calls)) >= 11)
        pids = children(process)
        assert len(pids) == (0 if workers == 1 else 2)
        with pytest.raises(InputError, match="is being searched by another process"):
            fakes.search(file, folder, Tabular(calls))
        process.kill()
        process.wait()
        wait_for("the end of the workers", lambda: not any(alive(pid) for pid in pids), 10)
    cut = len(fakes.lines(calls))

    started = time.monotonic()
    (folder / "journal.log.lock").touch()
    late = whole.loc[whole["outcome"] == "trained", "number"].iloc[6]
    run = fakes.search(file, folder, Failing(calls, how={late: "killed"} if workers == 2 else {}))
    assert time.monotonic() - started < 28, "waited for the lock that the killed search left"
    table, trials = run.trials(), run.all_trials()
    assert outcomes(table)["trained"] == 8 and all(trial.state.is_finished() for trial in trials)
    counts = fakes.epochs(calls)
    assert len({name for name, _ in counts}) == 8 and len(counts) == 8 * 4
    again = [key for key, count in counts.items() if count > 1]
    assert len(again) <= workers and max(counts.values()) <= 2, "but for the epochs in training when it was killed"
    assert {line[1] for line in fakes.lines(calls)[:cut]} <= set(table.loc[table["outcome"] == "trained", "id"])
    if workers == 1:
        pd.testing.assert_frame_equal(same(table), same(whole))
    else:
        failed = table[table["outcome"] == "failed"]
        assert list(failed["number"]) == [late] and failed["reason"].item().startswith("its process was killed by")


@needs_proc
def test_ctrl_c_ends_a_search_and_its_workers_without_a_word(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, trials=8, workers=2)
    with driver(file, tmp_path / "run", tmp_path / "calls", 0) as process:
        wait_for("two workers", lambda: len(children(process)) == 2)
        pids = children(process)
        for pid in pids:
            blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
            assert blocked and int(blocked[1], 16) & 1 << (signal.SIGINT - 1), "from its first instruction on"
        os.killpg(process.pid, signal.SIGINT)  # while they still import: before they can ignore it
        assert process.communicate(timeout=60)[1] == "" and process.returncode == 130
        wait_for("the end of the workers", lambda: not any(alive(pid) for pid in pids), 10)
    assert outcomes(Run.open(tmp_path / "run").trials())["running"] == 2


# Storages


def test_another_storage_holds_the_record(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    file = fakes.write_study(tmp_path, trials=5, storage=url, budget={"params": 1500})
    with pytest.raises(KeyboardInterrupt):
        fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls", stop_after=3))
    run = fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    assert outcomes(run.trials())["trained"] == 5 and not (tmp_path / "run" / "journal.log").exists()
    assert set(fakes.epochs(tmp_path / "calls").values()) == {1}
    study = optuna.load_study(study_name="toy", storage=url)
    assert len(study.trials) == len(run.trials()) and study.best_trials

    other = fakes.write_study(tmp_path / "other", trials=5, storage=url, budget={"params": 1000})
    with pytest.raises(InputError, match=r"other.run: storage 'sqlite:.*' holds another study named toy; choose"):
        fakes.search(other, tmp_path / "other" / "run", Tabular(tmp_path / "calls"))
    assert len(study.get_trials()) == len(run.trials())


@pytest.mark.parametrize("directions", [["maximize", "minimize"], ["minimize", "minimize"], ["maximize"]])
def test_a_study_of_another_program_is_left_as_it_is(directions: list[str], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/all.db"
    file = fakes.write_study(tmp_path, trials=2, storage=url)
    study = optuna.create_study(study_name="toy", storage=url, directions=directions)
    study.ask()
    with pytest.raises(InputError, match=r"holds another study named toy; choose another name or storage"):
        fakes.search(file, tmp_path / "run", Tabular(tmp_path / "calls"))
    there = optuna.load_study(study_name="toy", storage=url)
    assert (there.user_attrs, [trial.state.name for trial in there.trials]) == ({}, ["RUNNING"])


def test_a_storage_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path)
    run = Run.create(tmp_path / "run", fakes_config(file, storage="sqlite:////nowhere/x.db"))
    with pytest.raises(InputError, match=r"study toy: storage is 'sqlite:////nowhere/x\.db', but must be") as error:
        run.open_storage()
    assert "\n" not in str(error.value)


def fakes_config(file: Path, **changes: Any) -> Any:
    from nas.config import StudyConfig

    return StudyConfig.load(file).model_copy(update=changes)


CHANCE = "candidates reads the images better than chance (%.2f), so nothing can be chosen: make proxy.rungs longer"


@pytest.mark.parametrize(("accuracies", "warns"), [([0.26, 0.25, 0.2, 0.29], True), ([0.26, 0.25, 0.4, 0.2], False)])
def test_chance_is_called_chance(accuracies: list[float], warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Of 100 images of four classes."""
    _warn_of_chance(accuracies, np.arange(100) % 4)
    assert caplog.messages == [f"none of 4 {CHANCE % 0.25}, with another --run"] * warns


@pytest.mark.usefixtures("quiet_optuna")
def test_a_search_says_once_that_it_learns_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of the first four candidates, whatever was trained before a stop."""
    proxy = {"rungs": [1], "confirm": 0, "recipe": {"lr": 1e-9, "batch_size": 512}}
    for trials, said in ((2, 0), (5, 1), (6, 1)):
        search(fakes.write_study(tmp_path, proxy=proxy, trials=trials), tmp_path / "run")
        assert sum("better than chance (0.1" in message for message in caplog.messages) == said
