"""A search on a Ray cluster of three nodes on this machine, of which one is killed in the middle."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakes
import pytest
from fakes import Failing, Tabular

from nas.architecture import Architecture, Stage
from nas.config import StudyConfig
from nas.data import DataConfig
from nas.evaluation import Evaluator, Job, Measurement, ProxyTraining, Rung
from nas.executors.ray import Mirror, Ray
from nas.inputs import InputError
from nas.training import Recipe

# Before the import: without them Ray binds to the machine's own address, and reports how it is used.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'mobile-nas[ray]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quiet_optuna"),
    # Ray leaves sockets and files to the garbage collector, and announces its own changes.
    pytest.mark.filterwarnings("ignore"),
]
STAGES = (Stage.of("conv", 8, k=3), Stage.of("separable", 16, s=2), Stage.of("classifier", 10))
ARCHITECTURE = Architecture(STAGES, 8, 1)


def test_an_address_where_nobody_answers_is_one_line() -> None:
    """In front of those that start a cluster, which this process then belongs to."""
    with pytest.raises(InputError, match=r"executor\.address is '127\.0\.0\.1:1', where no Ray cluster answers: "):
        Ray(Shared(), 1, address="127.0.0.1:1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes of one CPU each, bound to the loopback address; the driver is connected to the first."""
    from ray.cluster_utils import Cluster

    tests = Path(fakes.__file__).parent
    places = os.pathsep.join([str(tests), str(tests.parent)])
    patch = pytest.MonkeyPatch()
    # Ray gives a node 30 s to start, which on a busy machine is too short.
    patch.setattr(
        "ray._private.node.time", SimpleNamespace(**{**vars(time), "monotonic": lambda: time.monotonic() / 9})
    )
    patch.setenv("PYTHONPATH", places, prepend=os.pathsep)  # for the nodes' workers
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1)
        made.wait_for_nodes()
        ray.init(address=made.address, log_to_driver=False)
        yield made
    finally:
        ray.shutdown()
        made.shutdown()
        patch.undo()


@dataclass(frozen=True)
class Slow(Tabular):
    """Says on which node it trains."""

    def evaluate(self, job: Job) -> Measurement:
        with open(self.calls.with_name("nodes"), "a", encoding="utf-8") as file:
            file.write(f"{job.number} {ray.get_runtime_context().get_node_id()}\n")
        return super().evaluate(job)


def killing(cluster: Any) -> Any:
    """Kills a node that is not the head in the middle of its training, when four candidates are told."""
    told = []

    def on_told(outcome: Any) -> None:
        told.append(outcome)
        if len(told) == 4:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    return on_told


def test_a_task_that_dies_goes_on_or_costs_its_candidate(tmp_path: Path, cluster: Any) -> None:
    evaluator = Failing(tmp_path / "calls", how={1: "killed", 2: "raises"})
    with Ray(evaluator, 2) as executor:
        found = {}
        for number in range(3):
            executor.submit(Job(number, ARCHITECTURE, (Rung(1),), 0, tmp_path / str(number)))
        for _ in range(3):
            job, measurement = executor.wait()
            found[job.number] = measurement
    assert found[0].accuracy and found[2].failure == "RuntimeError: boom"
    failure = found[1].failure or ""
    assert failure.startswith("its Ray task died: ") and failure.endswith(", 3 times and without an epoch between")


def test_a_task_that_hangs_is_ended(tmp_path: Path, cluster: Any) -> None:
    with Ray(Tabular(tmp_path / "calls", stall_after=0), 1) as executor:
        executor.submit(Job(0, ARCHITECTURE, (Rung(1),), 0, tmp_path / "0", limit_seconds=1))
        assert "or took longer than 1 s, 3 times" in (executor.wait()[1].failure or "")


class Shared(Evaluator):
    """Finds out whether it was given the images, and what lies in its folder."""

    def __init__(self) -> None:
        self.given: Any = None

    def images(self) -> str:
        return "images"

    def give(self, images: Any) -> None:
        self.given = images

    def evaluate(self, job: Job) -> Measurement:
        assert self.given == "images"
        file = job.folder / "checkpoint"
        before = int(file.read_text()) if file.exists() else 0
        file.write_text(str(before + 1))
        return Measurement(accuracy=0.5, epochs=before + 1)


def test_checkpoints_are_where_all_nodes_find_them(tmp_path: Path, cluster: Any) -> None:
    folder = tmp_path / "runs" / "toy" / "candidates" / "00000"
    with Ray(Shared(), 1, checkpoints=f"file://{tmp_path}/shared") as executor:
        for epochs in (1, 2):
            executor.submit(Job(0, ARCHITECTURE, (Rung(1),), 0, folder))
            assert executor.wait()[1].epochs == epochs
        assert not folder.exists()
        assert [file.read_text() for file in tmp_path.glob("shared/toy-*/00000/checkpoint")] == ["2"]
        namesake = tmp_path / "elsewhere" / "toy" / "candidates" / "00000"
        executor.submit(Job(0, ARCHITECTURE, (Rung(1),), 0, namesake))
        assert executor.wait()[1].epochs == 1, "another run of that name has its own"
        executor.forget(folder)
        assert [file.read_text() for file in tmp_path.glob("shared/toy-*/*/checkpoint")] == ["1"]


def test_the_short_training_takes_its_images_from_the_store(tmp_path: Path, cluster: Any) -> None:
    evaluator = ProxyTraining(DataConfig(source="digits"), Recipe(epochs=1, batch_size=256, lr=0.05))
    job = Job(0, ARCHITECTURE, (Rung(1),), 0, tmp_path / "0")
    with Ray(evaluator, 1) as executor:
        executor.submit(job)
        found = executor.wait()[1]
    assert found.failure is None and found.accuracy == evaluator.evaluate(replace(job, folder=tmp_path / "1")).accuracy


def test_a_node_is_killed_and_nothing_is_lost(tmp_path: Path, cluster: Any) -> None:
    """The same study file as on this machine alone, but for the executor."""
    settings: dict[str, Any] = {"trials": 10, "proxy": {"rungs": [2, 4], "keep": 1, "confirm": 0}}
    file = fakes.write_study(tmp_path, **settings)
    alone = fakes.search(file, tmp_path / "alone", Tabular(tmp_path / "alone_calls")).trials()
    executor = {"name": "ray", "address": cluster.address}
    file = fakes.write_study(tmp_path, **settings, workers=3, executor=executor)
    calls = tmp_path / "calls"
    run, study = fakes.open_study(file, tmp_path / "run", Slow(calls, seconds=0.5), killing(cluster))
    with run.lock():
        study.search()
    table = run.trials()
    assert set(table["outcome"]) == {"trained"} and sorted(table["id"]) == sorted(alone["id"])
    assert dict(zip(table["id"], table["accuracy"], strict=True)) == dict(
        zip(alone["id"], alone["accuracy"], strict=True)
    )
    nodes = {line.split()[1] for line in (tmp_path / "nodes").read_text().splitlines()}
    assert len(nodes) >= 2, "or the nodes had nothing to do"
    counts = fakes.epochs(calls)
    assert len(counts) == 10 * 4 and max(counts.values()) <= 2 and sum(counts.values()) <= 10 * 4 + 1


def test_options_are_checked(tmp_path: Path) -> None:
    for executor, says in (
        ({"name": "slurm"}, "executor.name is 'slurm', but must be one of: processes, ray, serial"),
        (
            {"name": "ray", "gpu": 1},
            "executor.gpu is not an option of ray; its options are: address, checkpoints, cpus",
        ),
        ({"name": "ray", "cpus": 0}, "executor.cpus is 0, but must be greater than 0"),
        ({"name": "processes", "cpus": 1}, "executor.cpus is not an option of processes; it has none"),
    ):
        with pytest.raises(InputError) as error:
            StudyConfig.load(fakes.write_study(tmp_path, executor=executor))
        assert says in str(error.value)


def test_a_mirror_copies_what_is_new(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("1")
    with Mirror.of(f"file://{tmp_path}/there") as folder:
        assert (folder / "old").read_text() == "1"
        (folder / "new").write_text("2")
        (folder / ".new.tmp").write_text("half")
        end = time.monotonic() + 20
        while not (tmp_path / "there" / "new").exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert (tmp_path / "there" / "new").read_text() == "2", "while the job runs"
    assert sorted(file.name for file in (tmp_path / "there").iterdir()) == ["new", "old"] and not folder.exists()


def test_a_mirror_pushes_nothing_that_it_pulled_and_leaves_the_traceback_of_a_failure(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        folder.mkdir()
    (there / "old").write_text("1")
    (there / "error.txt").write_text("Traceback")
    mirror = Mirror(f"file://{there}", here)
    mirror.pull()
    (there / "old").unlink()
    mirror.push()
    assert not (there / "old").exists()
    Mirror(f"file://{there}", tmp_path / "kept").remove()
    assert not there.exists() and (tmp_path / "kept" / "error.txt").read_text() == "Traceback"
