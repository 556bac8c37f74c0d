"""Where candidates are trained: what of a failure is whose, and what becomes of processes that die."""

from __future__ import annotations

import errno
import math
import os
import pickle
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from fakes import Failing, Tabular, accuracy, lines

from nas.architecture import Architecture, Stage
from nas.data import DataConfig
from nas.evaluation import Evaluator, Job, Measurement, ProxyTraining, Rung, begin, measure
from nas.executors import EXECUTORS, Executor
from nas.executors.executor import Deaths
from nas.executors.pace import FLOOR_SECONDS, Pace
from nas.executors.processes import Processes, _work, choose_gpu
from nas.executors.ray import _work as ray_work
from nas.inputs import InputError, damaged
from nas.training import Diverged, Recipe

ASSERT = "CUDA error: device-side assert triggered\nCompile with"
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
STAGES = (Stage.of("conv", 8, k=3), Stage.of("separable", 16, s=2), Stage.of("classifier", 10))
ARCHITECTURE = Architecture(STAGES, 8, 1)


def job(folder: Path, number: int = 0, epochs: int = 1) -> Job:
    return Job(number, ARCHITECTURE, (Rung(epochs),), 0, folder / f"{number:05d}")


@dataclass(frozen=True)
class Raising(Evaluator):
    error: BaseException

    def evaluate(self, job: Job) -> Measurement:
        raise self.error


# What of a failure is whose


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("boom"), "RuntimeError: boom"),
        (RuntimeError("boom\nat line 3"), "RuntimeError: boom"),
        (ZeroDivisionError(), "ZeroDivisionError:"),
        (Diverged("the loss is not finite"), "diverged: the loss is not finite"),
        (MemoryError("too large"), "out of memory: too large"),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "out of memory: CUDA out of memory."),
        (RuntimeError(NO_MEMORY), f"out of memory: {NO_MEMORY}"),
        (FileNotFoundError(errno.ENOENT, "No such file"), "FileNotFoundError: [Errno 2] No such file"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_goes_wrong_with_a_candidate_is_its_failure(tmp_path: Path, error: Exception, reason: str) -> None:
    measurement = measure(Raising(error), job(tmp_path))
    assert (measurement.accuracy, measurement.failure) == (None, reason) and measurement.seconds >= 0
    expected = not reason.startswith(("diverged", "out of memory"))
    assert (tmp_path / "00000" / "error.txt").exists() == expected
    if expected:
        assert f"{type(error).__name__}" in (tmp_path / "00000" / "error.txt").read_text()


@pytest.mark.parametrize(
    "error",
    [
        InputError("data.root is missing"),
        OSError(errno.ENOSPC, "No space left"),
        OSError(errno.EROFS, "Read-only"),
        torch.AcceleratorError(ASSERT),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_not_the_candidates_fault_stops_the_study(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as raised:
        measure(Raising(error), job(tmp_path))
    assert raised.value is error


@pytest.mark.parametrize("found", [float("nan"), float("inf"), None])
def test_an_accuracy_that_is_none_is_a_failure(tmp_path: Path, found: float | None) -> None:
    class Strange(Evaluator):
        def evaluate(self, job: Job) -> Measurement:
            return Measurement(accuracy=found, epochs=1)

    measurement = measure(Strange(), job(tmp_path))
    assert (measurement.accuracy, measurement.failure) == (None, f"diverged: its accuracy is {found}")


# Every executor


@pytest.fixture
def _four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_four_threads")
@pytest.mark.parametrize("name", [name for name in EXECUTORS if name != "ray"])  # that: test_ray.py
def test_an_executor_measures_and_outlives_failures(tmp_path: Path, name: str) -> None:
    calls = tmp_path / "calls"
    with EXECUTORS[name](Failing(calls, how={1: "raises", 2: "nan"}), 2) as executor:
        assert 1 <= executor.workers <= 2
        results: dict[int, Measurement] = {}
        numbers, busy = iter(range(7)), 0
        for number in numbers:
            if busy == executor.workers:
                done, measurement = executor.wait()
                results[done.number] = measurement
                busy -= 1
            executor.submit(job(tmp_path, number))
            busy += 1
        results |= {done.number: found for done, found in (executor.wait() for _ in range(busy))}
    expected = {1: "RuntimeError: boom", 2: "diverged: its accuracy is nan"}
    assert {number: x.failure for number, x in results.items() if x.failure} == expected
    assert sorted(results) == list(range(7)) and results[5].accuracy == accuracy(ARCHITECTURE.id) / 2
    threads = {line[4] for line in lines(calls)}
    assert threads == {str(4 // executor.workers)}


@dataclass(frozen=True)
class Mixed(Tabular):
    """Number 0 is quick, number 1 is the user's fault, number 2 takes a minute."""

    def evaluate(self, job: Job) -> Measurement:
        if job.number == 1:
            raise InputError("data.root is missing")
        return Tabular(self.calls, 60 if job.number else 0).evaluate(job)


def test_the_fault_of_the_user_is_raised_and_leaving_ends_all_work(tmp_path: Path) -> None:
    with Processes(Mixed(tmp_path / "calls"), 2) as executor:
        executor.submit(job(tmp_path, 2))
        executor.submit(job(tmp_path, 1))
        pids = [worker.process.pid for worker in executor.pool]
        with pytest.raises(InputError, match=r"data\.root is missing"):
            executor.wait()
        start = time.monotonic()
    assert time.monotonic() - start < 5 and len(pids) == 2
    for pid in pids:
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_candidate_that_always_ends_its_process_is_given_up(tmp_path: Path) -> None:
    with Processes(Failing(tmp_path / "calls", how={1: "exits"}), 1) as executor:
        executor.submit(job(tmp_path, 0))
        assert executor.wait()[1].failure is None
        process = executor.pool[0].process
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)  # in its sleep: that costs nothing
        process.join()
        executor.submit(job(tmp_path, 1))
        assert executor.wait()[1].failure == "its process ended with status 3, 3 times and without an epoch between"
        assert not executor.pool


@dataclass(frozen=True)
class Mortal(Tabular):
    """Its process is killed, or stopped, in the middle of the epochs `at`, the first time."""

    at: tuple[int, ...] = ()
    by: signal.Signals = signal.SIGKILL

    def evaluate(self, job: Job) -> Measurement:
        for epoch in range(1, job.rung.epochs + 1):
            measurement = super().evaluate(replace(job, rungs=(Rung(epoch),)))
            mark = job.folder.parent / f"{job.number}-{epoch}"
            if epoch in self.at and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), self.by)
        return measurement


def test_a_candidate_whose_process_was_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Processes(Mortal(tmp_path / "calls", at=(1, 2, 3)), 1) as executor:
        executor.submit(job(tmp_path, 0, epochs=4))
        assert executor.wait()[1].failure is None
    assert [line[2] for line in lines(tmp_path / "calls")] == ["1", "2", "3", "4"], "no epoch twice"
    gone_on = "candidate 0 is gone on with in a new process: its process was killed by SIGKILL (out of memory?)"
    assert caplog.messages == [gone_on] * 3


@dataclass(frozen=True)
class Broken(Tabular):
    """Its GPU fails behind the epoch, the first time, and from then on in that process."""

    def evaluate(self, job: Job) -> Measurement:
        is_new = (job.folder / "epochs").exists() and not self.done
        measurement = super().evaluate(job)
        if not is_new:
            raise torch.AcceleratorError(ASSERT)
        return measurement


def test_a_candidate_whose_gpu_failed_goes_on_in_a_new_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Processes(Broken(tmp_path / "calls"), 1) as executor:
        executor.submit(job(tmp_path))
        assert executor.wait()[1].failure is None
    reason = "its GPU failed: CUDA error: device-side assert triggered"
    assert caplog.messages == [f"candidate 0 is gone on with in a new process: {reason}"]


def test_without_another_process_a_gpu_that_failed_is_one_line(tmp_path: Path) -> None:
    executor = EXECUTORS["serial"](Raising(torch.AcceleratorError(ASSERT)), 1)
    executor.submit(job(tmp_path))
    with pytest.raises(InputError, match=r"^candidate 0: its GPU failed: CUDA error: device-side assert trig.*itself$"):
        executor.wait()


def test_a_worker_of_ray_whose_gpu_failed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os._exit", Mock(side_effect=SystemExit))
    evaluator = Raising(torch.AcceleratorError(ASSERT))
    with pytest.raises(SystemExit):
        ray_work("name", evaluator, None, job(tmp_path), None, torch.get_num_threads())


def test_a_candidate_that_hangs_is_ended_and_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.executors.processes._LOOK_SECONDS", 0.1)
    evaluator = Mortal(tmp_path / "calls", at=(1,), by=signal.SIGSTOP)
    with Processes(evaluator, 1) as executor:

        def hung() -> None:
            while not (tmp_path / "0-1").exists():
                time.sleep(0.02)
            executor.pool[0].seconds = 120.0  # as if it had hung for so long

        threading.Thread(target=hung, daemon=True).start()
        executor.submit(replace(job(tmp_path, 0, epochs=2), limit_seconds=60))
        assert executor.wait()[1].failure is None
    assert [line[2] for line in lines(tmp_path / "calls")] == ["1", "2"]


def test_a_candidate_that_hangs_for_ever_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.executors.processes._LOOK_SECONDS", 0.1)
    with Processes(Tabular(tmp_path / "calls", stall_after=0), 1) as executor:
        executor.submit(replace(job(tmp_path, 0), limit_seconds=0.5))
        assert executor.wait()[1].failure == "took longer than 0 s, and hangs, 3 times and without an epoch between"


def test_deaths_are_counted_since_there_was_something_new(tmp_path: Path) -> None:
    deaths, one = Deaths(), job(tmp_path)
    assert deaths.blamed(one, "it died") is None, "before it began"
    begin(one.folder)
    (one.folder / "epochs").write_text("1")
    assert deaths.blamed(one, "it died") is None
    begin(one.folder)
    (one.folder / "epochs").write_text("1")
    assert deaths.blamed(one, "it died") is None, "and an epoch that was written again is nothing new"
    (one.folder / "epochs").write_text("2")
    assert [deaths.blamed(one, "it died") for _ in range(2)] == [None, None]
    failure = deaths.blamed(one, "it died")
    assert failure is not None and failure.failure == "it died, 3 times and without an epoch between"


def test_time_for_which_the_driver_was_stopped_is_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Processes(Tabular(tmp_path / "calls"), 1) as executor:
        executor.submit(replace(job(tmp_path, 0), limit_seconds=60))
        executor.looked -= 3600  # as after Ctrl-Z, an hour and fg
        assert executor.wait()[1].failure is None
        assert executor.pool[0].seconds <= 60


def test_a_candidate_that_ends_its_driver_each_time_is_given_up(tmp_path: Path) -> None:
    """In this process there is nobody to see its end: that it was begun is on file."""
    evaluator = Failing(tmp_path / "calls", how={0: "interrupts"})

    def ends_it(times: int) -> None:
        for _ in range(times):
            with pytest.raises(KeyboardInterrupt):
                measure(evaluator, job(tmp_path, 0))

    ends_it(10)
    assert measure(evaluator, job(tmp_path, 0)).failure == "was begun 10 times and did not get through an epoch"
    (tmp_path / "00000" / "attempts.json").write_text("{torn")
    ends_it(9)
    (tmp_path / "00000" / "epochs").write_text("1")
    ends_it(9)
    (tmp_path / "00000" / "epochs").write_text("1")  # as a copy on another machine has it
    ends_it(1)
    assert measure(evaluator, job(tmp_path, 0)).failure == "was begun 10 times and did not get through an epoch"


def test_the_limit_follows_from_what_others_took() -> None:
    pace = Pace(10)
    assert pace.limit_seconds(0) == math.inf and pace.limit_seconds(1e10) == pytest.approx(FLOOR_SECONDS + 100)
    for seconds in (1, 2, 5):
        pace.note(1e10, seconds)
    pace.note(0, 1000)
    assert pace.limit_seconds(4e10) == pytest.approx(FLOOR_SECONDS + 10 * 20)


def test_what_a_short_training_computes_is_known_before() -> None:
    images, held = len(DIGITS.splits.train), len(DIGITS.splits.validation)
    assert DIGITS.work(1e6, (Rung(2),)) == 1e6 * (2 * 3 * images + held)
    rungs = (Rung(1, 0.5, 0.5), Rung(3, 0.5, 0.5))
    assert replace(DIGITS, seeds=2).work(1e6, rungs) == 2 * 1e6 / 4 * (2 * 3 * 0.5 * images + held)
    assert Tabular(Path("calls")).work(1e6, rungs) == 0


def test_processes_are_started_only_for_work(tmp_path: Path) -> None:
    with Processes(Tabular(tmp_path / "calls"), 64) as executor:
        assert isinstance(executor, Executor) and not executor.pool


def test_workers_divide_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends leaves its place to the next."""
    with Processes(Mortal(tmp_path / "calls", at=(1,)), 3) as executor:
        for number in range(3):
            executor.submit(job(tmp_path, number, epochs=2))
        assert [worker.place for worker in executor.pool] == [0, 1, 2]
        for _ in range(3):
            assert executor.wait()[1].failure is None
        assert sorted(worker.place for worker in executor.pool) == [0, 1, 2]
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for count, wanted in ((0, []), (1, []), (2, [0, 1, 0])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        chosen.clear()
        for place in range(3):
            choose_gpu(place)
        assert chosen == wanted


@pytest.mark.parametrize(("device", "wanted"), [("cuda", [1]), ("cuda:0", []), ("cpu", [])])
def test_a_worker_takes_a_gpu_only_where_the_study_leaves_it_the_choice(
    device: str, wanted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def recv(self) -> None:
            raise EOFError

    chosen: list[int] = []
    monkeypatch.setattr("nas.executors.processes.choose_gpu", chosen.append)
    monkeypatch.setattr("nas.executors.processes.end_with_parent", lambda: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("multiprocessing.parent_process", lambda: Closed())
    _work(replace(DIGITS, device=device), Closed(), torch.get_num_threads(), 1)  # type: ignore[arg-type]
    assert chosen == wanted


# The short training itself

DIGITS = ProxyTraining(DataConfig(source="digits"), Recipe(epochs=2, batch_size=256, lr=0.05))


def test_short_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    first = measure(DIGITS, job(tmp_path))
    assert first.failure is None and first.epochs == 1 and 0 <= (first.accuracy or -1) <= 1
    second = measure(DIGITS, job(tmp_path, epochs=2))
    whole = measure(DIGITS, job(tmp_path / "whole", epochs=2))
    assert (second.epochs, second.accuracy, second.loss) == (2, whole.accuracy, whole.loss)
    assert [epoch["train_loss"] for epoch in second.curve] == [epoch["train_loss"] for epoch in whole.curve]
    assert second.curve[0]["train_loss"] == first.curve[0]["train_loss"]


def test_several_seeds_give_the_mean_of_what_each_gives_alone(tmp_path: Path) -> None:
    alone = [measure(DIGITS, replace(job(tmp_path / str(seed), epochs=2), seed=seed)) for seed in (0, 1)]
    assert alone[0].accuracy != alone[1].accuracy and alone[0].accuracy_std is None
    twice = replace(DIGITS, seeds=2)
    assert measure(twice, job(tmp_path)).epochs == 1
    both = measure(twice, job(tmp_path, epochs=2))
    accuracies = [found.accuracy or math.nan for found in alone]
    assert both.accuracy == pytest.approx(sum(accuracies) / 2)
    assert both.loss == pytest.approx(sum(found.loss or math.nan for found in alone) / 2)
    assert both.accuracy_std == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert [(point["seed"], point["epoch"]) for point in both.curve] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("damage", ["truncated", "empty", "of another network"])
def test_a_damaged_checkpoint_costs_its_epochs_and_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = measure(DIGITS, job(tmp_path / "whole"))
    checkpoint = tmp_path / "00000" / "checkpoint.pt"
    checkpoint.parent.mkdir()
    if damage == "of another network":
        other = Architecture((STAGES[0], Stage.of("separable", 24, s=2), STAGES[2]), 8, 1)
        measure(DIGITS, Job(0, other, (Rung(1),), 0, checkpoint.parent))
    else:
        content = (tmp_path / "whole" / "00000" / "checkpoint.pt").read_bytes()
        checkpoint.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    again = measure(DIGITS, job(tmp_path))
    assert (again.failure, again.accuracy, again.loss) == (None, whole.accuracy, whole.loss)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"candidate 0 is trained from its start: {checkpoint}: ")


def test_a_checkpoint_that_the_memory_does_not_hold_is_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(DIGITS, job(tmp_path))
    content = (tmp_path / "00000" / "checkpoint.pt").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("torch.load", Mock(side_effect=RuntimeError(NO_MEMORY)))
        assert measure(DIGITS, job(tmp_path, epochs=2)).failure == f"out of memory: {NO_MEMORY}"
    assert (tmp_path / "00000" / "checkpoint.pt").read_bytes() == content
    with pytest.raises(RuntimeError, match="allocate memory"), damaged("it"):
        raise RuntimeError(NO_MEMORY)


def test_networks_of_the_last_rung_are_scored_in_int8(tmp_path: Path) -> None:
    """The weights that were validated, of every seed; a job that is taken up scores the same."""
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    rungs = (Rung(1, 0.5), Rung(4))
    # Enough images that the two accuracies are not one by chance.
    data = DataConfig(source="digits", validation=500)
    evaluator = ProxyTraining(data, Recipe(epochs=4, batch_size=64, lr=0.1, ema=0.9), seeds=2, int8=rungs[-1])
    one = replace(job(tmp_path), rungs=rungs[:1])
    top = replace(one, rungs=rungs)
    assert measure(evaluator, one).accuracy_int8 is None
    found = measure(evaluator, top)
    assert found.failure is None and found.accuracy is not None and found.accuracy_int8 is not None
    assert found.accuracy > 0.3 and abs(found.accuracy - found.accuracy_int8) < 0.05, "not the weights of the start"
    assert evaluator.__getstate__().keys() == replace(evaluator).__dict__.keys(), "images do not travel"
    again = measure(replace(evaluator), top)
    assert again.accuracy_int8 == found.accuracy_int8 != again.accuracy
    scored = measure(replace(evaluator, int8=None, precision="int8"), top)
    assert (scored.accuracy, scored.accuracy_float32) == (found.accuracy_int8, found.accuracy)
    last = [epoch["validation_accuracy"] for epoch in scored.curve if epoch["epoch"] == 4]
    assert (statistics.fmean(last), statistics.stdev(last)) == (scored.accuracy, scored.accuracy_std)
    below = measure(replace(evaluator, precision="int8"), replace(one, number=1, folder=tmp_path / "1"))
    assert below.accuracy_float32 is not None, "at every rung"


def test_divergence_is_a_failure_with_a_reason(tmp_path: Path) -> None:
    wild = ProxyTraining(DIGITS.data, Recipe(epochs=1, batch_size=256, lr=1e30))
    measurement = measure(wild, job(tmp_path))
    assert measurement.accuracy is None and (measurement.failure or "").startswith("diverged: the loss, in epoch 1")


def test_what_the_user_got_wrong_in_the_data_is_said_to_the_user(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.root"):
        measure(ProxyTraining(DataConfig(source="imagefolder", size=8), DIGITS.recipe), job(tmp_path))


def test_a_worker_gets_the_recipe_and_not_the_images() -> None:
    assert len(DIGITS.splits.train) > 1000
    pickled = pickle.dumps(DIGITS)
    assert len(pickled) < 10_000 and len(pickle.loads(pickled).splits.train) == len(DIGITS.splits.train)  # noqa: S301
