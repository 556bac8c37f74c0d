"""Spoils files at random and reads them: whatever is in them, a reader accepts it or refuses it with one clear line.

    scripts/fuzz                                   10,000 inputs for each reader
    scripts/fuzz --inputs 300 --readers yaml --seed 7

Readers: yaml (spaces, studies, architectures), journal (the tables of a run, and a search that goes on), checkpoint
(training goes on from it), weights (safetensors and .pth). Prints a line of JSON for each; the exit status is 1 if one
raised anything but InputError, or took longer than 10 seconds. The inputs that did are kept in the folder `--keep`.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from safetensors.torch import save_file

from nas.architecture import Architecture, Stage
from nas.config import StudyConfig
from nas.data.splits import Images
from nas.evaluation import Evaluator, Job, Measurement
from nas.inputs import InputError
from nas.network import build
from nas.report.tables import front_csv
from nas.run import Run
from nas.space import Space
from nas.study import Study
from nas.training import Diverged, Normalisation, Recipe, train
from nas.weights import load_weights

ROOT = Path(__file__).parents[1]
SECONDS = 10
ARCHITECTURE = Architecture((Stage.of("conv", 4, k=3), Stage.of("classifier", 2)), 4, 1)
SPACE = """
in_channels: 1
resolution: 8
stem: {block: conv, k: 3, c: [8, 16, 24]}
stages: [{block: separable, c: [8, 16, 24], s: 2}]
head: {block: classifier}
"""
STUDY = "name: f\nspace: space.yaml\ndata: {source: digits}\nsampler: {name: random}\nproxy: {rungs: [1], confirm: 1}\n"
STUDY += "executor: {name: serial}\ntrials: 4\n"
# What readers of text stumble over: bombs, tags, numbers, nesting, formulas, paths.
PIECES = [
    b"&a [*a]", b"*a", b"&a ", b"!!python/object/apply:os.system ['false']", b"!!binary aGk=", b"<<: ", b"? ", b"- ",
    b"9" * 5000, b"-1", b"1e999", b".nan", b"NaN", b"Infinity", b"null", b"true", b"[" * 2000, b"{" * 600, b"{}", b"[]",
    b"[[[[[[]]]]]]", b'"', b"'", b"\n", b"\t", b"\0", b"\xff\xfe", b": ", b", ", b"=cmd|' /C calc'!A0", b"../../x",
    b"/etc/passwd", b"18446744073709551616", b"0x10", b"1_0", b"~", b"2024-01-01", b"\xe2\x80\xae",
    b'{"op_code": 99}\n',
]  # fmt: skip


def spoilt(content: bytes, rng: random.Random) -> bytes:
    """With one to four changes: bits, cuts, pieces of itself or of PIECES put in, lines gone, doubled or exchanged."""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 4])):
        content = _changed(content, rng)
    return content


def _changed(content: bytes, rng: random.Random) -> bytes:
    place, end = sorted((rng.randrange(len(content) + 1), rng.randrange(len(content) + 1)))
    end = min(end, place + rng.choice([1, 4, 30, 1000]))
    kind = rng.randrange(8)
    if kind == 0 and content:
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + content[end:]
    if kind == 3:
        return content[:place] + content[place:end] * rng.choice([2, 3, 50]) + content[end:]
    if kind == 4:
        return _word_replaced(content, rng)
    if kind in {5, 6}:
        lines = content.splitlines(keepends=True) or [b""]
        one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        lines[one] = rng.choice([b"", lines[one] * 2, lines[other], lines[one][::-1]])
        return b"".join(lines)
    return content[:place] + rng.choice(PIECES) + content[end if rng.random() < 0.5 else place :]


def _word_replaced(content: bytes, rng: random.Random) -> bytes:
    """Another value in place of one: what is still well formed gets farther."""
    starts = [place for place, byte in enumerate(content) if byte in b' :[,"']
    if not starts:
        return content
    place = rng.choice(starts) + 1
    end = place
    while end < len(content) and content[end] not in b' :,]}"\n':
        end += 1
    return content[:place] + rng.choice(PIECES) + content[end:]


# Each reader: made in a folder, it gives contents to spoil, and reads one.
Reader = tuple[list[bytes], Callable[[bytes], None]]


def read_yaml_files(folder: Path) -> Reader:
    files = [*ROOT.glob("search_spaces/*.yaml"), *ROOT.glob("studies/*.yaml")]
    contents = [content for file in sorted(files) if len(content := file.read_bytes()) < 4000]
    contents += [ARCHITECTURE.to_yaml().encode(), SPACE.encode(), STUDY.encode()]
    file = folder / "x.yaml"

    def read(content: bytes) -> None:
        file.write_bytes(content)
        reason: InputError | None = None
        for reader in (Space.load, StudyConfig.load, Architecture.load):
            try:
                reader(file)
            except InputError as error:
                reason = error
            else:
                return
        assert reason is not None
        raise reason

    return contents, read


class Instant(Evaluator):
    def evaluate(self, job: Job) -> Measurement:
        found = int(job.architecture.id, 16) % 1000 / 1000
        return Measurement(accuracy=found, loss=1.0, epochs=1, seconds=0.1, curve=[])


def read_journal(folder: Path) -> Reader:
    (folder / "space.yaml").write_text(SPACE)
    (folder / "study.yaml").write_text(STUDY)
    run = Run.create(folder / "run", StudyConfig.load(folder / "study.yaml"))
    Study(run, run.space(1, 10), Instant()).search()
    journal = run.folder / "journal.log"
    whole = journal.read_bytes()
    half = b"".join(whole.splitlines(keepends=True)[: whole.count(b"\n") // 2])

    def read(content: bytes) -> None:
        journal.write_bytes(content)
        trials, front = run.trials(), run.front()
        run.receipt(trials, front)
        front_csv(front, folder / "front.csv")
        Study(run, run.space(1, 10), Instant()).search()

    return [whole, half], read


def read_checkpoint(folder: Path) -> Reader:
    rng = np.random.default_rng(0)
    images = Images(rng.integers(0, 255, (8, 4, 4, 1), np.uint8), np.arange(8) % 2)
    file, recipe = folder / "checkpoint.pt", Recipe(epochs=2, batch_size=4)

    def go_on() -> None:
        normalisation = Normalisation((0.5,), (0.2,))
        network = build(ARCHITECTURE, 0)
        train(network, images, images, recipe, normalisation=normalisation, resolution=4, checkpoint=file)

    go_on()
    content = file.read_bytes()

    def read(content: bytes) -> None:
        file.write_bytes(content)
        go_on()

    return [content], read


def read_weights(folder: Path) -> Reader:
    network = build(ARCHITECTURE, 0)
    torch.save(network.state_dict(), folder / "x.pth")
    save_file(network.state_dict(), folder / "x.safetensors")
    kinds = {(folder / name).read_bytes()[:4]: folder / name for name in ("x.pth", "x.safetensors")}
    contents = [file.read_bytes() for file in kinds.values()]

    def read(content: bytes) -> None:
        file = kinds.get(content[:4], folder / "x.safetensors")
        file.write_bytes(content)
        load_weights(network, file)

    return contents, read


READERS: dict[str, Callable[[Path], Reader]] = {
    "yaml": read_yaml_files,
    "journal": read_journal,
    "checkpoint": read_checkpoint,
    "weights": read_weights,
}


def inputs(contents: list[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        yield spoilt(rng.choice(contents), rng)


class TooLong(BaseException):
    """No reader may catch it."""


def too_long(*_: Any) -> None:
    raise TooLong(f"took longer than {SECONDS} s")


def fuzz(name: str, count: int, seed: int, keep: Path) -> dict[str, Any]:
    facts = {
        "reader": name,
        "inputs": count,
        "accepted": 0,
        "refused": 0,
        "failures": 0,
        "several_lines": 0,
        "seed": seed,
    }
    slowest = 0.0
    folder = Path(tempfile.mkdtemp(prefix="nas-fuzz-"))
    try:
        contents, read = READERS[name](folder)
        for content in inputs(contents, count, random.Random(f"{seed}/{name}")):
            start = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                read(content)
                facts["accepted"] += 1
            except (InputError, Diverged) as error:
                facts["refused"] += 1
                facts["several_lines"] += "\n" in str(error)
            except (Exception, TooLong):  # noqa: BLE001 - what is looked for
                signal.alarm(0)
                facts["failures"] += 1
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{name}-{facts['failures']}").write_bytes(content)
                print(f"{keep}/{name}-{facts['failures']}: {traceback.format_exc(limit=-3)}", file=sys.stderr)
            signal.alarm(0)
            slowest = max(slowest, time.perf_counter() - start)
    finally:
        shutil.rmtree(folder)
    return {**facts, "slowest_seconds": round(slowest, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default=",".join(READERS), help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="folder for inputs that failed")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    logging.getLogger("nas").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, too_long)
    found = []
    for name in options.readers.split(","):
        found.append(fuzz(name, options.inputs, options.seed, options.keep))
        print(json.dumps(found[-1]), flush=True)
    return int(any(each["failures"] or each["several_lines"] for each in found))


if __name__ == "__main__":
    sys.exit(main())
