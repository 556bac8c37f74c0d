"""Kills a search on real digits at random, again and again, and compares its end with that of an undisturbed one.

    scripts/chaos                     50 kills, about 15 minutes on two cores
    scripts/chaos --kills 5 --trials 8 --seed 3

A kill is SIGKILL of the driver, of a worker, of all at once; SIGSTOP of either, which then goes on or is killed; or a
full disk (a small tmpfs, where mounting one is allowed). Each comes while the search starts or trains. Prints one line
of JSON: `kills` by kind, `lost` (candidates of the undisturbed search that this one has not trained), `repeated`
(epochs that were trained again though they were in a checkpoint, and candidates trained twice), and whether the front
is the same. The exit status is 1 if anything was lost or repeated, or the front is another one. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nas.evaluation
from nas.cli import main as nas_main
from nas.run import Run
from nas.training import Epoch, train

SPACE = """
in_channels: 1
resolution: 8
stem: {block: conv, k: 3, c: [8, 12, 16, 20]}
stages:
  - {block: separable, c: [8, 12, 16, 24], n: [1, 2], s: 2, k: [3, 5]}
  - {block: separable, c: [16, 24, 32], n: [0, 1]}
head: {block: classifier}
"""
STUDY = """
name: chaos
space: space.yaml
data: {source: digits}
sampler: {name: random}
proxy: {rungs: [2, 4], keep: 1, confirm: 0, recipe: {lr: 0.1}}
workers: 2
"""
TMPFS_BYTES = 16 * 2**20
START_SECONDS, TRAIN_SECONDS, STOP_SECONDS = 8.0, 2.0, 1.0
PATIENCE_SECONDS = 300.0
LOG = "NAS_CHAOS_LOG"


def logged(network: Any, *arguments: Any, **settings: Any) -> list[Epoch]:
    """`train`, and a line in the log for each epoch whose checkpoint is written."""

    def note(epoch: Epoch) -> None:
        with open(os.environ[LOG], "a", encoding="utf-8") as file:
            file.write(f"{network.architecture.id} {epoch.epoch}\n")

    return train(network, *arguments, on_epoch=note, **settings)


if LOG in os.environ:  # in the driver, and in its workers, which import this module
    nas.evaluation.train = logged


class Search:
    """`nas search` in a session of its own, begun anew whenever it ended."""

    def __init__(self, folder: Path, name: str, trials: int) -> None:
        self.run, self.log, self.errors = folder / name / "run", folder / f"{name}.log", folder / f"{name}.err"
        self.command = [sys.executable, __file__, "--drive", "search", str(folder / "study.yaml")]
        self.command += ["--run", str(self.run), "--trials", str(trials)]
        self.log.touch()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        with open(self.errors, "ab") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - this file
                self.command,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                env={**os.environ, LOG: str(self.log)},
            )
        return self.process

    def epochs(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines()

    def workers(self) -> list[int]:
        """Those of the driver's processes that train."""
        assert self.process is not None
        with contextlib.suppress(FileNotFoundError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return []

    def results(self) -> tuple[dict[str, float], list[tuple[str, float]], int]:
        """Accuracy of what was trained by id, the front, and how many were trained more than once."""
        run = Run.open(self.run)
        trials, front = run.trials(), run.front()
        done = trials[trials["outcome"] == "trained"]
        left = trials[trials["outcome"].isin(["running", "waiting"])]
        assert left.empty, f"left: {left}"
        members = sorted(zip(front["id"], front["accuracy"], strict=True))
        return dict(zip(done["id"], done["accuracy"], strict=True)), members, int(done["id"].duplicated().sum())


def send(pid: int, sent: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sent)


class Chaos:
    """Chooses how and when, by a seed, and does it."""

    def __init__(self, search: Search, seed: int, disk: Path | None) -> None:
        self.search, self.rng, self.disk = search, random.Random(seed), disk
        self.kinds = ["driver", "worker", "all", "stop driver", "stop worker", "stop worker, kill driver"]
        self.kinds += ["full disk"] if disk else []
        self.kills: Counter[str] = Counter()

    def until_done(self, kills: int) -> None:
        """Kills so often, or until the search is done; then leaves it alone until it is."""
        process = self.search.start()
        while process.poll() != 0:
            if process.poll() is not None:
                process = self._again(process)
            elif self.kills.total() >= kills:
                process.wait(PATIENCE_SECONDS)
            else:
                self._wait(process)
                if process.poll() is None:
                    self._kill(process)

    def _again(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode}: {self._said()}"
        self._gone(process.pid)
        return self.search.start()

    def _said(self) -> str:
        return self.search.errors.read_text(encoding="utf-8")[-2000:]

    def _gone(self, session: int) -> None:
        """Waits for the end of a dead driver's workers."""
        end = time.monotonic() + 20
        while alive := [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _trains(pid, session)]:
            assert time.monotonic() < end, f"workers {alive} outlive their driver"
            time.sleep(0.02)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        """Until some moment of the start, or of the training."""
        if self.rng.random() < 0.3:
            time.sleep(self.rng.uniform(0, START_SECONDS))
            return
        before, end = len(self.search.epochs()), time.monotonic() + PATIENCE_SECONDS
        while process.poll() is None and len(self.search.epochs()) == before:
            assert time.monotonic() < end, f"no epoch within {PATIENCE_SECONDS:.0f} s: {self._said()}"
            time.sleep(0.01)
        time.sleep(self.rng.uniform(0, TRAIN_SECONDS))

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        kind, workers = self.rng.choice(self.kinds), self.search.workers()
        if not workers and "worker" in kind:
            kind = "driver"
        worker = self.rng.choice(workers) if workers else 0
        self.kills[kind] += 1
        after = self.rng.choice([signal.SIGCONT, signal.SIGKILL])
        if kind == "driver":
            send(process.pid, signal.SIGKILL)
        elif kind == "worker":
            send(worker, signal.SIGKILL)
        elif kind == "all":
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "full disk":
            self._fill(process)
        elif kind == "stop worker, kill driver":
            send(worker, signal.SIGSTOP)
            send(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_SECONDS)
            send(worker, signal.SIGCONT)  # one that was stopped while it imported cannot know yet
        else:
            target = worker if kind == "stop worker" else process.pid
            send(target, signal.SIGSTOP)
            time.sleep(self.rng.uniform(0, STOP_SECONDS))
            send(target, after)
        if kind not in {"worker", "stop worker"} and not (kind == "stop driver" and after == signal.SIGCONT):
            process.wait(PATIENCE_SECONDS)

    def _fill(self, process: subprocess.Popen[bytes]) -> None:
        """Until the search notices; then it stops with one line, and so does the next before there is room."""
        assert self.disk is not None
        ballast = self.disk / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        with contextlib.suppress(OSError), open(ballast, "ab", buffering=0) as file:
            while True:
                file.write(b"0")
        status, again = process.wait(PATIENCE_SECONDS), self.search.start()
        statuses = status, again.wait(PATIENCE_SECONDS)
        ballast.unlink()
        last = self._said().splitlines()[-1:]
        assert statuses[0] == 0 or (statuses == (2, 2) and "No space left" in last[0]), f"{statuses}: {self._said()}"
        if statuses[0] == 2:
            process.returncode = -signal.SIGKILL  # as the others are, from here on


def _trains(pid: int, session: int) -> bool:
    """Whether a worker of this session lives; behind the name stand its state, its parent and its group."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        state, _, group, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(group) == session and state != "Z" and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A tmpfs at `folder`, or None where this user may not mount one."""
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    options = ["-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(folder)]
    if not mount or not umount or subprocess.run([mount, *options], capture_output=True, check=False).returncode:  # noqa: S603
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run([umount, str(folder)], check=True)  # noqa: S603


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nas-chaos-") as name:
        folder = Path(name)
        (folder / "space.yaml").write_text(SPACE)
        (folder / "study.yaml").write_text(f"{STUDY}trials: {options.trials}\n")
        calm = Search(folder, "calm", options.trials)
        status = calm.start().wait()
        assert status == 0, calm.errors.read_text()
        with small_disk(folder / "wild") as disk:
            wild = Search(folder, "wild", options.trials)
            chaos = Chaos(wild, options.seed, disk)
            chaos.until_done(options.kills)
            (expected, front, _), (found, wild_front, twice) = calm.results(), wild.results()
            left = list((wild.run / "candidates").iterdir())
        lost = sum(found.get(member) != accuracy for member, accuracy in expected.items())
        repeated = sum(count - 1 for count in Counter(wild.epochs()).values()) + twice
    facts = {
        "kills": chaos.kills.total(),
        "lost": lost,
        "repeated": repeated,
        "same_front": wild_front == front,
        "candidates": len(found),
        "by_kind": dict(sorted(chaos.kills.items())),
        "left_over": len(left),
        "seed": options.seed,
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(facts))
    return int(bool(lost or repeated or left or wild_front != front))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        sys.exit(nas_main(sys.argv[2:]))
    sys.exit(main())
