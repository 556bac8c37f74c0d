"""Latency: ratios that a busy machine leaves alone, layers in their frame, predictions, latency as a cost."""

from __future__ import annotations

import io
import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from nas import blocks
from nas.architecture import Layer, Stage
from nas.census import Feasible
from nas.cli import main as cli
from nas.config import StudyConfig
from nas.evaluation import Job, Measurement
from nas.export.int8 import quantised
from nas.export.model import make_model
from nas.inputs import InputError, parse_yaml
from nas.latency import (
    LATENCY,
    RUNTIMES,
    Bench,
    Latency,
    Runtime,
    import_table,
    latency_of,
    open_source,
    plan,
    validate,
)
from nas.latency import measure as measuring
from nas.latency.measure import SITTINGS, Effort, Sample, Timing, Timings, measure, settle
from nas.latency.predict import distinct_layers, members
from nas.latency.probe import REFERENCE, framed, whole
from nas.latency.table import Table, layer_name, manifest
from nas.report.facts import report_facts
from nas.report.progress import Watch
from nas.run import Run
from nas.space import Space
from nas.study import search
from nas.study.measuring import measure_front, measure_places

# Measuring


class Machine:
    """Runs take what they are, times what the machine is like: quiet, half as fast for some runs, or interrupted."""

    def __init__(self, quiet: float) -> None:
        self.rng, self.share = random.Random(0), quiet
        self.is_quiet, self.wall, self.own = True, 0.0, 0.0

    def run(self, seconds: float) -> None:
        if self.rng.random() < 0.2:
            self.is_quiet = self.rng.random() < self.share
        taken = seconds * self.rng.uniform(1, 1.04) * (1 if self.is_quiet else 1.7)
        self.own += taken
        self.wall += taken + (0.01 if self.rng.random() < 0.05 else 0)


@pytest.fixture
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(request.param)
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: made.wall)
    monkeypatch.setattr(measuring.time, "thread_time", lambda: made.own)
    return made


@pytest.mark.parametrize("machine", [1.0, 0.5, 0.2], indirect=True, ids=str)
def test_what_disturbs_the_machine_cancels(machine: Machine) -> None:
    wanted = [3.0, 0.2, 1.0]
    models = [lambda x=x: machine.run(x * 1e-3) for x in wanted]
    found = measure(models, lambda: machine.run(1e-3), Effort(5, 70), one_thread=True).models
    for timing, truth in zip(found, wanted, strict=True):
        assert timing.ratio == pytest.approx(truth, rel=0.03) and timing.low <= timing.ratio <= timing.high
        assert timing.high / timing.low < 1.06


@pytest.mark.parametrize("machine", [1.0], indirect=True, ids=str)
def test_rounds_end_when_enough_runs_count(machine: Machine) -> None:
    runs = [0]

    def model() -> None:
        runs[0] += 1
        machine.run(1e-3)

    measure([model], lambda: machine.run(1e-3), Effort(10, 400), one_thread=True)
    assert 10 * SITTINGS < runs[0] <= 30 * SITTINGS


@pytest.mark.parametrize("machine", [1.0], indirect=True, ids=str)
def test_sittings_are_so_far_apart(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(seconds: float) -> None:
        waited.append(seconds)
        machine.wall += seconds

    waited: list[float] = []
    monkeypatch.setattr(measuring.time, "sleep", wait)
    measure([lambda: machine.run(1e-3)], lambda: machine.run(1e-3), Effort(4, 9, apart=60), one_thread=True)
    assert len(waited) == SITTINGS and 59 * (SITTINGS - 1) < machine.wall < 61 * (SITTINGS - 1)


def test_what_differs_from_sitting_to_sitting_is_in_the_interval() -> None:
    """A ratio of 2, a tenth more or less for as long as a sitting takes."""
    off = [0.9, 1.0, 1.1, 1.0, 0.95, 1.0]
    sittings = [[Sample(2.0 * each, 1.0, False)] * 8 for each in off]
    assert settle(sittings, [1.0] * 6, 1.0, 8) == Timing(2.0, pytest.approx(1.8), pytest.approx(2.2), 48)
    unit = [1.0, 1.01, 1.0, 1.02, 1.0, 1.02]
    both = Timing(pytest.approx(2 / 1.005), pytest.approx(1.8 / 1.02), pytest.approx(2.2), 48)
    assert settle(sittings, unit, 1.0, 8) == both, "and so is what the reference takes"


def test_a_network_that_most_sittings_disturbed_is_not_quiet() -> None:
    busy, quiet = [Sample(4.5, 1.5, False)] * 8, [Sample(3.0, 1.0, False)] * 8
    assert settle([quiet, *[busy] * 5], [1.0] * 6, 1.0, 8).quiet == 0
    assert settle([busy, *[quiet] * 5], [1.0] * 6, 1.0, 8) == Timing(3.0, 3.0, 4.5, 40)


def test_nothing_to_measure_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(measuring.time, "sleep")
    found = measure([], lambda: None, Effort(1, 1, apart=60), one_thread=True)
    table = Table({})
    assert found.models == table.take(found) == [] and table.reference_ms == 0, "nor is there a unit"


def test_runs_beside_a_slow_reference_or_interrupted_do_not_count() -> None:
    good = [Sample(2.0 + 0.1 * i, 1.03, False) for i in range(4)]
    bad = [Sample(0.5, 1.2, False), Sample(0.4, 1.0, True)]
    found = settle([[*good, *bad]], [1.0], 1.0, 4)
    assert found.ratio == pytest.approx(2.015) and found.quiet == 4, "the 5th percentile"
    found = settle([[*good, *bad]], [1.0], 1.0, 6)
    assert found.ratio == pytest.approx(0.425) and found.quiet == 4, "too few: the others, too"
    found = settle([[*good, *bad]], [1.0], 1.0, 5)
    assert found.ratio == pytest.approx(0.8) and found.quiet == 4, "the quietest first, the interrupted last"
    assert settle([[Sample(3.0, 2.0, False)] * 4], [2.0], 2.0, 4) == Timing(1.5, 1.5, 1.5, 4)
    assert settle([[Sample(3.0, 2.0, False)] * 4], [2.0], 1.0, 4) == Timing(1.5, 1.5, 1.5, 0), "it was faster once"


def test_a_faster_reference_makes_the_unit_smaller() -> None:
    """What was undisturbed by the slow unit may not have been; ratios are to the reference as it was beside them."""
    table = Table({})
    table.take(Timings([], [0.004] * 9, 0.004))
    table.layers["a"] = Timing(2.0, 1.9, 2.2, 12)
    assert table.take(Timings([Timing(3.0, 3.0, 3.0, 9)], [0.0039] * 9, 0.0039)) == [Timing(3.0, 3.0, 3.0, 9)]
    assert table.reference_ms == pytest.approx(3.9) and table.layers["a"].quiet == 12
    for unit in (0.002, 0.003):
        table.take(Timings([], [unit] * 9, unit))
        assert table.reference_ms == pytest.approx(2) and table.layers["a"] == Timing(2.0, 1.9, 2.2, 0)


@pytest.mark.usefixtures("known")
def test_what_was_never_undisturbed_is_measured_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def busy(*given: Any) -> Timings:
        found = looked_up(*given)
        return Timings([Timing(2 * x.ratio, x.low, x.high, 0) for x in found.models], found.reference, found.unit)

    with monkeypatch.context() as patch:
        patch.setattr("nas.latency.table.measure", busy)
        disturbed = latency_of(toy(), bench())
    assert "the machine was never quiet; latencies may be off" in caplog.text
    caplog.clear()
    found, member = latency_of(toy(), bench()), next(iter(toy().enumerate()))
    assert not caplog.text and found.predict(member) < 0.6 * disturbed.predict(member)


# Runtimes


# Lowering takes ExecuTorch seconds a network.
@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.slow] if name == "executorch" else []) for name in RUNTIMES]
)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found = RUNTIMES[request.param]
    try:
        found.check()
    except InputError as error:
        pytest.skip(str(error))
    return found


LAYERS = [
    Layer("bottleneck", 8, 16, 2, 8, (("groups", 2), ("t", 3))),
    Layer("cse", 8, 12, 1, 8, (("t", 2),)),
    Layer("shuffle", 8, 16, 2, 8, (("groups", 2),)),
    Layer("classifier", 8, 5, 1, 4),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.block)
def test_layers_run_in_their_frame(runtime: Runtime, layer: Layer) -> None:
    module, shape = framed(layer)
    assert isinstance(module.get_submodule("layer"), nn.Module) and shape[1:] == (layer.resolution,) * 2
    assert runtime.open(module, shape, 1)() is not None or not runtime.on_caller


def test_whole_networks_run(runtime: Runtime) -> None:
    threads = 1 if runtime is RUNTIMES["executorch"] else 2  # it has one number of threads in a process
    logits = runtime.open(*whole(REFERENCE), threads)()
    found = np.asarray(logits[0] if isinstance(logits, list) else logits.cpu())  # type: ignore[attr-defined]
    assert found.shape == (1, 10) and np.isfinite(found).all() and found.std() > 0


def test_the_process_keeps_its_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAS_CACHE", str(tmp_path))
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        bench("eager").networks([REFERENCE], Effort(1, 1))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


# A runtime whose times are known


class Known:
    """A model that takes what `seconds` says; it is not run."""

    def __init__(self, module: nn.Module) -> None:
        self.seconds = 2e-5 + sum(
            3e-6 + 1e-9 * sum(w.numel() for w in m.parameters()) for m in module.modules() if isinstance(m, nn.Conv2d)
        )

    def __call__(self) -> None:
        raise AssertionError("times are known")


OPENED: list[nn.Module] = []


def opened(module: nn.Module, shape: Any, threads: int) -> Known:
    OPENED.append(module)
    return Known(module)


def halved(module: nn.Module, shape: Any, threads: int) -> Known:
    """As `opened` in int8: twice as fast, but for what every network takes."""
    known = Known(module)
    known.seconds = (known.seconds + 2e-5) / 2
    return known


def no_groups(module: nn.Module, shape: Any, threads: int) -> Known:
    """A runtime without grouped convolutions, but for depthwise ones."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d) and 1 < each.groups < each.in_channels:
            raise InputError("operator grouped_conv is not there")
    return opened(module, shape, threads)


def looked_up(models: Sequence[Known], reference: Known, effort: Effort, one_thread: bool, unit: float) -> Timings:
    times = [each.seconds / reference.seconds for each in models]
    return Timings([Timing(x, 0.99 * x, 1.01 * x, 99) for x in times], [reference.seconds] * 3, reference.seconds)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runtimes `fake` and `picky`, and a cache of one's own."""
    monkeypatch.setitem(RUNTIMES, "fake", Runtime(("torch",), lambda: None, True, opened))
    monkeypatch.setitem(RUNTIMES, "fake-int8", Runtime(("torch",), lambda: None, True, halved, precision="int8"))
    monkeypatch.setitem(RUNTIMES, "picky", Runtime(("torch",), lambda: None, True, no_groups))
    monkeypatch.setattr("nas.latency.table.measure", looked_up)
    monkeypatch.setenv("NAS_CACHE", str(tmp_path / "cache"))
    OPENED.clear()


def toy() -> Space:
    return Space.from_dict(parse_yaml(fakes.TOY, "toy"), "toy", 1, 10)


def bench(name: str = "fake") -> Bench:
    return Bench(name, RUNTIMES[name], 1, lambda what, done, total: None)


def test_distinct_layers_are_those_of_all_members() -> None:
    wanted = {layer_name(layer) for member in toy().enumerate() for layer in member.layers}
    found = [layer_name(layer) for layer in distinct_layers(toy())]
    assert sorted(wanted) == found


@pytest.mark.usefixtures("known")
def test_what_adds_up_is_predicted() -> None:
    facts = validate(toy(), bench(), 20)
    assert facts["kendall_tau"] == pytest.approx(1) and facts["mape"] < 1e-6 and facts["within_10_percent"] == 1
    assert facts["mape_interval"][1] < 1e-6 and facts["kendall_tau_interval"][0] > 0.99 and facts["networks"] == 20
    fresh = {row["id"] for row in facts["rows"]}
    assert len(fresh) == 20 and not fresh & {each.id for each in members(toy(), 40, "calibration")}
    assert facts["layers"] < facts["layers_of_space"] == len(distinct_layers(toy()))
    json.dumps(facts, allow_nan=False)


@pytest.mark.usefixtures("known")
def test_nothing_is_measured_twice() -> None:
    first = latency_of(toy(), bench())
    assert len(OPENED) > len(distinct_layers(toy()))
    OPENED.clear()
    assert latency_of(toy(), bench()) == first and not OPENED
    file = bench().file
    assert file and file.exists()
    file.write_text(file.read_text()[:-9])
    assert latency_of(toy(), bench()) == first and OPENED, "a damaged file is measured anew"


@pytest.mark.usefixtures("known")
def test_tables_and_predictions_come_back_from_files(tmp_path: Path) -> None:
    table = bench().layers(distinct_layers(toy()))
    assert Table.of(json.loads(json.dumps(table.to_dict())), "x") == table
    found = latency_of(toy(), bench())
    assert Latency.of_dict(json.loads(json.dumps(found.to_dict())), "x") == found
    for read in (Table.of, Latency.of_dict):
        with pytest.raises(InputError, match=r"x: is no .* or is damaged"):
            read({"layers": 3}, "x")


@pytest.mark.usefixtures("known")
def test_a_layer_that_was_not_measured_is_named() -> None:
    found = latency_of(toy(), bench())
    with pytest.raises(InputError, match="conv9 behind 1 channels at 8 pixels was not measured"):
        found.of(Layer("conv", 1, 9, 1, 8))


def grouped(architecture: Any) -> bool:
    return any(dict(layer.options).get("groups", 1) > 1 for layer in architecture.layers)


@pytest.mark.usefixtures("known")
def test_what_the_runtime_cannot_run_is_refused_by_the_operator() -> None:
    space, found = toy(), latency_of(toy(), bench("picky"))
    feasible = Feasible(space, {}, latency=found)
    for member in space.enumerate():
        problem = feasible.problem(member)
        assert (problem is not None) == grouped(member)
        if problem:
            assert problem.endswith(": operator grouped_conv is not there") and problem.startswith("bottleneck")
    assert not any(grouped(feasible.draw(random.Random(seed))) for seed in range(50))


@pytest.mark.usefixtures("known")
def test_a_space_that_cannot_run_at_all() -> None:
    text = fakes.SIX.replace("block: separable", "block: conv, groups: 4")
    space = Space.from_dict(parse_yaml(text, "six"), "six", 1, 10)
    with pytest.raises(InputError, match="none of its members was found that picky runs: operator grouped_conv"):
        latency_of(space, bench("picky"))


@pytest.mark.usefixtures("known")
def test_validation_leaves_out_what_the_runtime_refuses() -> None:
    facts = validate(toy(), bench("picky"), 20)
    refused = {each.id for each in toy().enumerate() if grouped(each)}
    assert 2 <= facts["networks"] <= 20 and not refused & {row["id"] for row in facts["rows"]}
    assert facts["mape"] < 1e-6


@pytest.mark.usefixtures("known")
def test_many_networks_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never more than so many are in memory; a machine that is faster later on has the same ratios."""
    seen: list[int] = []

    def faster(models: Sequence[Known], reference: Known, *given: Any) -> Timings:
        seen.append(len(models))
        found, part = looked_up(models, reference, *given), len(seen)
        return Timings(found.models, [found.unit / part] * 3, found.unit / part)

    networks, table = list(toy().enumerate())[:7], bench()
    wanted = [table.table.ms(x)["ms"] for x in table.again(networks)]
    monkeypatch.setattr("nas.latency.table._TOGETHER", 3)
    monkeypatch.setattr("nas.latency.table.measure", faster)
    table = bench()
    found = [table.table.ms(x)["ms"] for x in table.again(networks)]
    assert seen == [3, 3, 1] and np.array(found) == pytest.approx(np.array(wanted) / 3)


@pytest.mark.usefixtures("known")
def test_what_a_block_of_ones_own_takes_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code may change, and nobody here would see."""
    assert bench().file
    own = type("Own", (blocks.BLOCKS["conv"],), {"__module__": __name__})
    monkeypatch.setitem(blocks.BLOCKS, "own", own)
    assert bench().file is None and latency_of(toy(), bench())


def test_progress_leaves_nothing_behind() -> None:
    watch = Watch()
    watch.console, watch.live = Console(file=(out := io.StringIO()), force_terminal=True, highlight=False), True
    watch.progress("layers", 1_000, 2_000)
    watch.progress("networks", 40, 40)
    assert out.getvalue() == "measuring layers: 1,000 of 2,000\033[K\r\033[K\r"


# As a cost


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("budget", [{}, {"params": 2000}])
def test_a_limit_leaves_what_is_fast_enough(budget: dict[str, float]) -> None:
    space, latency = toy(), latency_of(toy(), bench())
    times = sorted(latency.predict(member) for member in space.enumerate())
    limit = times[len(times) // 4]
    feasible = Feasible(space, {**budget, LATENCY: limit}, latency=latency)
    drawn = {member.id: member for member in (feasible.draw(random.Random(seed)) for seed in range(400))}
    fitting = {
        member.id
        for member in space.enumerate()
        if latency.predict(member) <= limit and feasible.costs_of(member)["params"] <= budget.get("params", 10**9)
    }
    assert drawn.keys() == fitting
    with pytest.raises(InputError, match=r"latency_ms 1e-09 .*leaves? nothing of space toy"):
        Feasible(space, {LATENCY: 1e-9}, latency=latency)


def study(tmp_path: Path, **changes: Any) -> Path:
    latency = {"latency": {"runtime": "fake"}, "objectives": ["accuracy", LATENCY], "trials": 6}
    return fakes.write_study(tmp_path, **{**latency, **changes})


def searched(file: Path, folder: Path, calls: Path, kind: type[fakes.Tabular] = fakes.Tabular) -> Run:
    run = Run.create(folder, StudyConfig.load(file))
    if not run.latency_file.exists():
        source = open_source(run.config.latency.runtime, 1, lambda what, done, total: None)
        run.latency_file.write_text(json.dumps(latency_of(toy(), source).to_dict()))
    return fakes.search(file, folder, kind(calls))


@pytest.mark.usefixtures("known", "quiet_optuna")
@pytest.mark.parametrize("sampler", ["random", "surrogate"])
def test_a_search_for_accuracy_against_latency(tmp_path: Path, sampler: str) -> None:
    times = sorted(latency_of(toy(), bench()).predict(member) for member in toy().enumerate())
    limit = times[len(times) // 2]
    changes = {"budget": {LATENCY: limit, "params": 3000}, "sampler": {"name": sampler}}
    run = searched(study(tmp_path, **changes), tmp_path / "run", tmp_path / "calls")
    trials = run.trials()
    trained = trials[trials["outcome"] == "trained"]
    assert len(trained) == 6 and (trained[LATENCY] <= limit).all() and (trained["params"] <= 3000).all()
    over = trials[trials["outcome"] == "over budget"]["reason"]
    assert all(" > " in reason for reason in over)
    front = run.front()
    assert front[LATENCY].is_monotonic_increasing and front["accuracy"].is_monotonic_increasing
    assert front["measured_ms"].isna().all()
    measure_front(run, lambda what, done, total: None)
    front = run.front()
    assert np.allclose(front["measured_ms"].to_numpy(float), front[LATENCY].to_numpy(float), rtol=1e-6)
    OPENED.clear()
    measure_front(run, lambda what, done, total: None)
    assert not OPENED, "what was measured is not measured again"


# In int8


class InInt8(fakes.Tabular):
    """At the last rung networks are a little worse in int8."""

    def evaluate(self, job: Job) -> Measurement:
        found = super().evaluate(job)
        assert found.accuracy is not None
        return replace(found, accuracy_int8=found.accuracy - 0.01) if job.rung.epochs == 3 else found


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_a_front_in_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = study(tmp_path, latency={"runtime": "fake", "int8": True}, proxy={"rungs": [1, 3], "confirm": 1}, trials=12)
    run = searched(file, tmp_path / "run", tmp_path / "calls", InInt8)
    trials, front = run.trials(), run.front()
    trained, cut = (trials[trials["outcome"] == outcome] for outcome in ("trained", "cut"))
    assert np.allclose(trained["accuracy_int8"].to_numpy(float), trained["accuracy"] - 0.01)
    assert len(cut) and cut["accuracy_int8"].isna().all() and front["latency_int8_ms"].isna().all()
    measure_front(run, lambda what, done, total: None)
    front = run.front()
    known = {member.id: member for member in toy().enumerate()}
    truth = [1e3 * halved(whole(known[each])[0], None, 1).seconds for each in front["id"]]
    assert front["latency_int8_ms"].to_numpy(float) == pytest.approx(truth)
    assert (front["latency_int8_ms"] < front["measured_ms"]).all()
    assert cli(["front", str(run.folder)]) == 0
    assert {"accuracy_int8", "latency_int8_ms"} <= set(capsys.readouterr().out.splitlines()[0].split())
    table = report_facts(run)["table"]
    shown = {number: (a, b) for number, a, b in zip(*(table[x] for x in SHOWN_IN_INT8), strict=True)}
    for number, accuracy, time in zip(*(front[name] for name in SHOWN_IN_INT8), strict=True):
        assert shown[number] == pytest.approx((accuracy, time), abs=1e-5)
    assert sum(time is not None for _, time in shown.values()) == len(front)


SHOWN_IN_INT8 = ("number", "accuracy_int8", "latency_int8_ms")


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_a_search_in_int8(tmp_path: Path) -> None:
    """Its runtime says so: networks are scored, predicted, bounded and measured as they are in int8."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    latency, rungs = {"runtime": "fake-int8"}, [{"epochs": 1}, {"epochs": 4}]
    limit = 1e3 * np.median([halved(whole(each)[0], None, 1).seconds for each in toy().enumerate()])
    file = study(
        tmp_path,
        latency=latency,
        objectives=["accuracy", LATENCY],
        budget={LATENCY: float(limit)},
        proxy={"rungs": rungs, "confirm": 1, "recipe": {"lr": 0.1}},
        trials=3,
    )
    run, _ = search(file, tmp_path / "run")
    trials, front = run.trials(), run.front()
    trained = trials[trials["outcome"] == "trained"]
    assert len(trained) and (trained[LATENCY] <= limit).all()
    assert not np.allclose(trained["accuracy"], trained["accuracy_float32"].to_numpy(float), atol=1e-9), "two networks"
    assert (trained["accuracy"] - trained["accuracy_float32"]).abs().max() < 0.1
    known = {member.id: member for member in toy().enumerate()}
    truth = [1e3 * halved(whole(known[each])[0], None, 1).seconds for each in front["id"]]
    assert front["measured_ms"].to_numpy(float) == pytest.approx(truth)
    again = trials[trials["outcome"] == "confirmation"].set_index("confirms")
    for number, row in trained.set_index("number").iterrows():
        one = json.loads(row["rungs"])[-1]["accuracy"]
        assert row["accuracy"] == pytest.approx(np.mean([one, *again["accuracy"].get([number], [])]))


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_without_int8_there_are_no_such_columns(tmp_path: Path) -> None:
    run = searched(study(tmp_path), tmp_path / "run", tmp_path / "calls")
    columns = {*run.front(), *run.trials(), *report_facts(run)["table"]}
    assert not {"accuracy_int8", "latency_int8_ms"} & columns


def test_runtimes_without_int8_are_refused(tmp_path: Path) -> None:
    file = fakes.write_study(tmp_path, latency={"runtime": "eager", "int8": True})
    with pytest.raises(InputError, match=r"latency\.runtime is 'eager', but must be for int8 one of: onnxruntime"):
        StudyConfig.load(file)


def test_a_record_from_before_int8_is_of_the_same_study(tmp_path: Path) -> None:
    """A claim in a database has no key of it; that of `latency` is as it was."""
    fixed = StudyConfig.load(fakes.write_study(tmp_path, latency={"runtime": "onnxruntime"})).fixed()
    assert fixed["latency"] == {"runtime": "onnxruntime", "threads": 1} and fixed["latency.int8"] is False


def test_networks_run_in_int8() -> None:
    """What is timed has whole numbers in it, and its own name on record."""
    onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
    assert manifest("onnxruntime-int8", RUNTIMES["onnxruntime-int8"], 1)["precision"] == "int8"
    module, shape = whole(REFERENCE)
    model = make_model(module.eval(), torch.empty(1, *shape, device="meta"), {})
    found = onnx.load_from_string(quantised(model, np.zeros((2, *shape), np.float32)))
    kinds = {weight.data_type for weight in found.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds and "DequantizeLinear" in {node.op_type for node in found.graph.node}


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_networks_of_files_and_of_runs_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = searched(study(tmp_path), tmp_path / "run", tmp_path / "calls")
    other = next(iter(toy().enumerate()))
    (tmp_path / "x.yaml").write_text(other.to_yaml())
    assert cli(["latency", "measure", str(run.folder), str(tmp_path / "x.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    front, rows = run.front(), found["networks"]
    assert [row["id"] for row in rows] == [*front["id"], other.id] and found["manifest"]["runtime"] == "fake"
    assert [row["ms"] for row in rows[:-1]] == pytest.approx(front[LATENCY].tolist(), rel=1e-6)
    assert [row["predicted_ms"] for row in rows] == [*front[LATENCY], None]
    assert all(row["low_ms"] < row["ms"] < row["high_ms"] and row["quiet"] == 99 for row in rows)
    assert cli(["latency", "measure", str(run.folder)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()[1:]
    assert header.split() == ["id", "ms", "low_ms", "high_ms", "predicted_ms", "quiet"]
    assert lines[0].split() == [front["id"][0], *(f"{rows[0][key]:.4f}" for key in header.split()[1:-1]), "99"]
    elsewhere = measure_places([run.folder], None, 2, lambda what, done, total: None)
    assert elsewhere["manifest"]["threads"] == 2 and elsewhere["networks"][0]["predicted_ms"] is None
    second = searched(study(tmp_path, latency={"runtime": "fake", "threads": 2}), tmp_path / "b", tmp_path / "calls")
    with pytest.raises(InputError, match="--threads is missing: the runs have 1 and 2"):
        measure_places([run.folder, second.folder], None, None, lambda what, done, total: None)


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_predictions_for_another_machine_are_not_mixed_with_times_of_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = searched(study(tmp_path), tmp_path / "run", tmp_path / "calls")
    facts = json.loads(run.latency_file.read_text())
    facts["manifest"] |= {"hardware": {"processor": "Other 9000", "cores": 3}, "packages": {"torch": "1.0"}}
    run.latency_file.write_text(json.dumps(facts))
    run = Run.open(run.folder)
    measure_front(run, lambda what, done, total: None)
    other = "predicted for processor Other 9000, cores 3, torch 1.0"
    assert caplog.messages == [f"{run.folder}: its front is not measured here: its latencies are {other}"]
    assert not run.measured_file.exists()
    found = measure_places([run.folder], None, None, lambda what, done, total: None)
    assert {row["predicted_ms"] for row in found["networks"]} == {None}


@pytest.mark.usefixtures("known")
def test_what_cannot_be_measured(tmp_path: Path, home: Path) -> None:
    def measured(place: Path, runtime: str | None = None) -> None:
        measure_places([place], runtime, None, lambda what, done, total: None)

    networks = [member for member in toy().enumerate() if grouped(member)]
    (tmp_path / "x.yaml").write_text(networks[0].to_yaml())
    with pytest.raises(InputError, match="operator grouped_conv is not there"):
        measured(tmp_path / "x.yaml", "picky")
    with pytest.raises(InputError, match="is not a run"):
        measured(tmp_path / "nowhere")
    manifest = {"reference": REFERENCE.id, "threads": 1}
    table = Table(manifest, 2.0, networks={networks[0].id: Timing(3.0, 2.5, 3.5, 9)}, refused={networks[1].id: "why"})
    (tmp_path / "table.json").write_text(json.dumps(table.to_dict()))
    import_table(tmp_path / "table.json", "phone")
    facts = measure_places([tmp_path / "x.yaml"], "phone", None, lambda what, done, total: None)
    assert facts["networks"][0]["ms"] == 6 and facts["manifest"]["runtime"] == "phone"
    (tmp_path / "x.yaml").write_text(networks[1].to_yaml())
    with pytest.raises(InputError, match=rf"x\.yaml: {networks[1].id}: why"):
        measured(tmp_path / "x.yaml", "phone")
    (tmp_path / "x.yaml").write_text(networks[2].to_yaml())
    with pytest.raises(InputError, match="runtime phone: 1 networks were not timed there"):
        measured(tmp_path / "x.yaml", "phone")


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_what_cannot_run_is_not_trained(tmp_path: Path) -> None:
    file = study(tmp_path, latency={"runtime": "picky"}, sampler={"name": "tpe", "startup": 4})
    trials = searched(file, tmp_path / "run", tmp_path / "calls").trials()
    refused = trials[trials["reason"].str.contains("operator grouped_conv is not there")]
    assert (refused["outcome"] == "impossible").all()
    assert not trials[trials["outcome"] == "trained"]["stages"].str.contains("groups=3").any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ["accuracy", "latency_ms"]}, "latency_ms needs to know where: add latency: {runtime: onnxrunt"),
        ({"budget": {"latency_ms": 0.5}}, "latency_ms needs to know where"),
        (
            {"latency": {"runtime": "tflite"}},
            r"latency\.runtime is 'tflite', but must be one of: cuda, eager, executorch, onnx",
        ),
        ({"latency": {"threads": 0}}, r"latency\.threads is 0, but must be"),
    ],
)
def test_what_a_study_must_say(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StudyConfig.load(fakes.write_study(tmp_path, **changes))


def test_another_runtime_is_another_study(tmp_path: Path) -> None:
    one, other = (
        StudyConfig.load(fakes.write_study(tmp_path, latency=latency)).fixed()
        for latency in ({"runtime": "onnxruntime"}, {"runtime": "eager"})
    )
    assert one != other


def test_the_reference_stays_what_it_is() -> None:
    """Another one is another unit: all that was measured would be void."""
    assert REFERENCE.id == "39f9fa336c61" and REFERENCE.stages[0] == Stage.of("conv", 16)


# Another device


def latency_and_table(manifest: dict[str, Any]) -> Table:
    """What a device says of the whole toy space, in a unit of 1 ms."""
    source = bench()
    latency_of(toy(), source)
    return replace(source.table, manifest=manifest)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


def test_a_device_by_files(home: Path) -> None:
    """The script runs with numpy and onnxruntime alone, goes on where it was, and its table is a runtime."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    space = Space.from_dict(parse_yaml(fakes.SIX, "six"), "six", 1, 10)
    written = plan(space, home / "plan")
    models = list((home / "plan/models").iterdir())
    assert len(models) == written["files"] and sum(x.stat().st_size for x in models) == written["bytes"]
    facts = json.loads((home / "plan/plan.json").read_text())
    facts["effort"] = {part: [4, 2] for part in facts["effort"]}
    (home / "plan/plan.json").write_text(json.dumps(facts))
    refused = next(job for job in facts["jobs"] if job["part"] == "networks")
    (home / "plan" / refused["file"]).write_bytes(b"what this device cannot read")
    blocked = "import sys; sys.modules['nas'] = sys.modules['torch'] = None; sys.path.insert(0, 'plan'); "
    blocked += "import time_models; sys.argv[1:] = ['--out', 'table.json']; time_models.main()"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", blocked], cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "", "the second time there was nothing left to do"
    file = import_table(home / "table.json", "phone")
    assert file.is_relative_to(home / "home")
    found = latency_of(space, open_source("phone", 1, lambda what, done, total: None))
    assert found.manifest["runtime"] == "phone" and found.fitted["networks"] == 5, "all but the refused"
    assert all(found.predict(member) > 0 for member in space.enumerate())
    config = StudyConfig.load(fakes.write_study(home, latency={"runtime": "phone"}, budget={LATENCY: 3}))
    assert config.latency and config.latency.runtime == "phone"
    with pytest.raises(InputError, match=r"runtime phone: \d+ layers were not timed there .*nas latency plan SPACE"):
        latency_of(toy(), open_source("phone", 1, lambda what, done, total: None))
    with pytest.raises(InputError, match="runtime phone: threads is 2, but must be 1, as it was timed"):
        open_source("phone", 2, lambda what, done, total: None)


def test_whole_networks_alone_can_be_planned(home: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    networks = list(toy().enumerate())[:2]
    assert plan(networks, home / "plan")["files"] == 3, "and the reference"
    jobs = json.loads((home / "plan/plan.json").read_text())["jobs"]
    assert [(job["part"], job["name"]) for job in jobs[1:]] == [("networks", each.id) for each in networks]


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_the_front_as_it_was_timed_on_a_device(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The space first, then, once the search is over, its front; the second table is added to the first."""
    told: list[Any] = []
    manifest = {"reference": REFERENCE.id, "threads": 1, "hardware": {"processor": "x", "memory": 8}}
    whole_space = latency_and_table(manifest)
    (home / "table.json").write_text(json.dumps(whole_space.to_dict()))
    file = import_table(home / "table.json", "phone")
    run = searched(study(home, latency={"runtime": "phone"}), home / "run", home / "calls")
    missing = run.front()["id"].tolist()
    whole_space.networks = {name: x for name, x in whole_space.networks.items() if name not in missing}
    file.write_text(json.dumps(whole_space.to_dict()))
    measure_front(run, lambda *about: told.append(about))
    front = run.front()
    assert front["measured_ms"].isna().tolist() == front["id"].isin(missing).tolist() and not told
    assert missing and f"{len(missing)} of its front were not timed on phone: nas latency plan" in caplog.text
    networks = {name: Timing(3.0, 2.9, 3.1, 9) for name in missing}
    later = Table({**manifest, "hardware": {"processor": "x", "memory": 4}}, 2.0, networks=networks)
    (home / "table.json").write_text(json.dumps(later.to_dict()))
    import_table(home / "table.json", "phone")
    measure_front(run, lambda *about: told.append(about))
    front = run.front().set_index("id")
    assert front["measured_ms"].notna().all()
    assert front.loc[missing, "measured_ms"].tolist() == [3.0 * whole_space.reference_ms] * len(missing)
    other = Table({**manifest, "hardware": {"processor": "y"}}, 2.0, networks=networks)
    (home / "table.json").write_text(json.dumps(other.to_dict()))
    with pytest.raises(
        InputError, match="has whole networks alone, and processor y, other than phone had: time its sp"
    ):
        import_table(home / "table.json", "phone")


def test_tables_of_one_machine_with_the_smaller_unit() -> None:
    one = Table({}, 2.0, (1.9, 2.1), layers={"a": Timing(1, 1, 1, 9), "b": Timing(2, 2, 2, 9)}, refused={"c": "why"})
    other = Table({"new": 1}, 1.0, (1.0, 1.0), layers={"b": Timing(5, 5, 5, 9)}, params={"b": 7})
    for both in (one.joined(other), other.joined(one)):
        assert (both.reference_ms, both.reference_interval_ms) == (1.0, (1.0, 1.0))
        assert both.layers["a"] == Timing(1, 1, 1, 0) and both.refused == {"c": "why"} and both.params == {"b": 7}
    timed = Table({}, 1.0, layers={"c": Timing(1, 1, 1, 9)})
    assert one.joined(timed).refused == {} and timed.joined(one).refused == {"c": "why"}, "the newer counts"
    assert one.joined(other).layers["b"].ratio == 5 and other.joined(one).layers["b"].ratio == 2


@pytest.mark.usefixtures("quiet_optuna")
def test_a_run_opens_where_its_device_is_not(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "table.json").write_text(json.dumps(Table({"reference": REFERENCE.id, "threads": 1}, 1.0).to_dict()))
    table = import_table(home / "table.json", "phone")
    file = study(home, latency={"runtime": "phone"}, proxy={"rungs": [1, 3, 9]})
    run = fakes.recorded(file, home / "run", 20)
    table.unlink()
    assert cli(["front", str(run.folder)]) == 0 and LATENCY in capsys.readouterr().out
    with pytest.raises(InputError, match=r"study\.yaml: latency\.runtime is 'phone', but must be one of: "):
        StudyConfig.load(file)


@pytest.mark.parametrize(
    "way", [["plan", "--out", "plan"], ["validate", "--runtime", "fake", "--json"]], ids=lambda x: x[0]
)
@pytest.mark.usefixtures("known")
def test_a_space_for_other_images(way: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "six.yaml").write_text(fakes.SIX)
    spaces: list[Space] = []

    def heard(space: Space, *more: Any) -> dict[str, int]:
        spaces.append(space)
        return {"files": 0, "bytes": 0}

    monkeypatch.setattr(f"nas.latency.{way[0]}", heard)
    assert cli(["latency", *way, str(tmp_path / "six.yaml"), "--classes", "37", "--channels", "3"]) == 0
    member = next(iter(spaces[0].enumerate()))
    assert (member.in_channels, member.layers[-1].out_channels) == (3, 37)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("{}", "phone", "is no table of latencies, or is damaged"),
        ("{", "phone", "is not JSON"),
        ("{}", "onnxruntime", "--name is 'onnxruntime', but must be another one: it is a runtime of this machine"),
        ("{}", "../phone", "--name is '../phone', but must be at most 40 small letters"),
    ],
)
def test_a_table_that_is_none(home: Path, text: str, name: str, message: str) -> None:
    (home / "table.json").write_text(text)
    with pytest.raises(InputError, match=message):
        import_table(home / "table.json", name)
    assert not (home / "home").exists()


def test_a_table_in_another_unit(home: Path) -> None:
    (home / "table.json").write_text(json.dumps(Table({"reference": "0" * 12}, 1.0).to_dict()))
    with pytest.raises(InputError, match=r"manifest\.reference is '000000000000', but must be \w{12}: plan again"):
        import_table(home / "table.json", "phone")


@pytest.mark.parametrize("unit", [0.0, -1.0, math.nan, math.inf])
def test_a_table_without_a_unit(home: Path, unit: float) -> None:
    (home / "table.json").write_text(json.dumps(Table({"reference": REFERENCE.id}, unit).to_dict()))
    with pytest.raises(InputError, match=r"reference_ms is [\w.-]+, but must be more than 0"):
        import_table(home / "table.json", "phone")


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_a_table_with_times_that_are_none(home: Path, ratio: float) -> None:
    table = Table({"reference": REFERENCE.id}, 1.0, networks={"a": Timing(1.0, ratio, 1.0, 9)})
    (home / "table.json").write_text(json.dumps(table.to_dict()))
    with pytest.raises(InputError, match="is no table of latencies, or is damaged"):
        import_table(home / "table.json", "phone")


def test_a_plan_that_was_not_written_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be planned again in its folder, and is not timed until then."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    space = Space.from_dict(parse_yaml(fakes.SIX, "six"), "six", 1, 10)

    def killed(layer: Layer) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.latency.device.framed", killed)
    with pytest.raises(KeyboardInterrupt):
        plan(space, tmp_path / "plan")
    monkeypatch.undo()
    script = Path(measuring.__file__).with_name("time_models.py")
    (tmp_path / "plan/time_models.py").write_bytes(script.read_bytes())
    done = subprocess.run([sys.executable, "plan/time_models.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("plan.json: has no models: it was not written to its end")
    assert plan(space, tmp_path / "plan")["files"] > 10


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("content", ["", "{}", "\xff", '{"manifest": {"hardware": null}}'])
def test_a_damaged_device_is_repaired_by_importing_it_again(home: Path, content: str) -> None:
    (home / "table.json").write_text(json.dumps(latency_and_table({"reference": REFERENCE.id}).to_dict()))
    file = import_table(home / "table.json", "phone")
    whole_table = file.read_text()
    file.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=r"phone\.json: is damaged; import it again"):
        open_source("phone", 1, lambda what, done, total: None)
    import_table(home / "table.json", "phone")
    assert file.read_text() == whole_table


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("part", ["method", "reference", "threads"])
def test_tables_timed_otherwise_are_not_added(home: Path, part: str) -> None:
    manifest = {"reference": REFERENCE.id, "threads": 1, "method": "a"}
    first = latency_and_table(manifest)
    (home / "table.json").write_text(json.dumps(first.to_dict()))
    file = import_table(home / "table.json", "phone")
    file.write_text(json.dumps(Table({**manifest, part: 2}, 1.0, layers=first.layers).to_dict()))
    networks = Table(manifest, 1.0, networks={"x": Timing(3.0, 2.9, 3.1, 9)})
    (home / "table.json").write_text(json.dumps(networks.to_dict()))
    with pytest.raises(InputError, match=f"has whole networks alone, and {part} "):
        import_table(home / "table.json", "phone")


@pytest.mark.usefixtures("known", "quiet_optuna")
def test_what_a_device_refuses_is_said_and_what_it_timed_anew_counts(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = latency_and_table({"reference": REFERENCE.id, "threads": 1})
    (home / "table.json").write_text(json.dumps(table.to_dict()))
    file = import_table(home / "table.json", "phone")
    run = searched(study(home, latency={"runtime": "phone"}), home / "run", home / "calls")
    first = run.front()["id"][0]
    for timing in (Timing(3.0, 2.9, 3.1, 9), Timing(4.0, 3.9, 4.1, 9)):
        table.networks[first] = timing
        file.write_text(json.dumps(table.to_dict()))
        measure_front(run, lambda what, done, total: None)
        assert run.front()["measured_ms"][0] == timing.ratio * table.reference_ms
    del table.networks[first]
    table.refused[first] = "no Foo there"
    file.write_text(json.dumps(table.to_dict()))
    measure_front(run, lambda what, done, total: None)
    assert f"{first} cannot run on phone: no Foo there" in caplog.text and "were not timed" not in caplog.text


def test_a_plan_of_networks_says_their_classes_itself(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "net").mkdir()
    (home / "net/architecture.yaml").write_text(next(iter(toy().enumerate())).to_yaml())
    assert cli(["latency", "plan", str(home / "net"), "--out", str(home / "plan"), "--classes", "3"]) == 2
    assert "--classes is 3, but must be left out" in capsys.readouterr().err


def test_a_plan_wants_a_folder_of_its_own(home: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    (home / "mine").mkdir()
    (home / "mine/letter.txt").touch()
    with pytest.raises(InputError, match="but must be a new folder, or one of an earlier plan"):
        plan(toy(), home / "mine")
